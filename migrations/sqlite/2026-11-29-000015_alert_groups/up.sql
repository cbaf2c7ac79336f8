-- The group that an alert is about, such as site:Hall; NULL: the device. device_id is then the member that brought the group over.
ALTER TABLE alerts ADD COLUMN group_name TEXT CHECK (length(CAST(group_name AS BLOB)) BETWEEN 1 AND 1024);

-- What a rule remembers of a group of devices, changed only together with the position.
CREATE TABLE alert_group_states (
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    rule TEXT NOT NULL CHECK (length(CAST(rule AS BLOB)) BETWEEN 1 AND 128),
    group_name TEXT NOT NULL CHECK (length(CAST(group_name AS BLOB)) BETWEEN 1 AND 1024),
    instance TEXT NOT NULL REFERENCES bridge_instances ON DELETE CASCADE,
    state TEXT NOT NULL,
    PRIMARY KEY (tenant_id, rule, group_name, instance)
) STRICT, WITHOUT ROWID;
