DROP TABLE maintenance;
DROP TRIGGER sites_told;
ALTER TABLE sites DROP COLUMN timezone;
