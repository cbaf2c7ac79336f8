-- Sensors' last values are written in their turn, some with each batch: to write all of them each time costs more than the
-- readings. Since when some wait in the instance's memory: those of sensors whose devices were heard from then on. A start after
-- a crash finds them in telemetry. NULL: none wait.
ALTER TABLE bridge_instances ADD COLUMN last_values_since INTEGER;
