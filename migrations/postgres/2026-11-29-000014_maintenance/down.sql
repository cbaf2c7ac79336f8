DROP TABLE maintenance;
DROP FUNCTION maintenance_is_told();
DROP TRIGGER sites_told ON sites;
DROP FUNCTION sites_are_told();
ALTER TABLE sites DROP COLUMN timezone;
