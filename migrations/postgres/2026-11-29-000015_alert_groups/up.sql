-- The group that an alert is about, such as site:Hall; NULL: the device. device_id is then the member that brought the group over.
ALTER TABLE alerts ADD COLUMN group_name text CHECK (octet_length(group_name) BETWEEN 1 AND 1024);

-- What a rule remembers of a group of devices, changed only together with the position.
CREATE TABLE alert_group_states (
    tenant_id integer NOT NULL REFERENCES tenants,
    rule text NOT NULL CHECK (octet_length(rule) BETWEEN 1 AND 128),
    group_name text NOT NULL CHECK (octet_length(group_name) BETWEEN 1 AND 1024),
    instance text NOT NULL REFERENCES bridge_instances ON DELETE CASCADE,
    state text NOT NULL,
    PRIMARY KEY (tenant_id, rule, group_name, instance)
) WITH (fillfactor = 80);
