//! Everything that knows SQL: pools, migrations, the batch transaction, the catalog's rows, queries.

pub mod batch;
