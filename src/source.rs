//! Topic → source and captures.

/// A topic filter with named captures.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter;

/// Why a filter can't be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(pub String);

impl Filter {
    /// Reads a filter as written in `[[sources]]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(_text: &str) -> Result<Filter, FilterError> {
        Ok(Filter)
    }
}
