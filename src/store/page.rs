//! The readings of a device between two instants, page by page, the newest page first.

use diesel::prelude::*;

use super::Store;
use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use super::query::{DeviceFilter, EARLIEST, ReadingRow, list_devices};
use super::schema::{device_sensors, telemetry, telemetry_text};
use crate::config::fault::did_you_mean;
use crate::time::UtcMicros;

/// Which readings are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Between {
    pub tenant: String,
    /// Uid.
    pub device: String,
    /// None: every metric.
    pub metric: Option<String>,
    /// None: from the beginning.
    pub from: Option<UtcMicros>,
    /// Only what is earlier; none: to the newest.
    pub to: Option<UtcMicros>,
    /// The newest so many. Those of one instant stay together, so that a page may have fewer, or where one instant has more than
    /// that, more.
    pub limit: usize,
}

/// Readings, the oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stretch {
    pub rows: Vec<ReadingRow>,
    /// There are older ones: the [`Between::to`] that goes on with them.
    pub earlier: Option<UtcMicros>,
}

#[derive(Queryable)]
struct Sensor {
    id: i32,
    metric: String,
    unit: String,
    last_time: Option<UtcMicros>,
    last_text_time: Option<UtcMicros>,
}

/// From the first to before the second.
type Span = (UtcMicros, Option<UtcMicros>);

impl Store {
    /// The newest readings that the query means. One query for each sensor, whose end of the primary key is read backwards; once
    /// there are enough, only for what is newer than those.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where there is no such device or metric.
    pub fn readings_between(&self, query: &Between) -> Result<Stretch, StoreError> {
        self.look(|conn| {
            let mut page = Page { rows: Vec::new(), limit: query.limit.max(1) };
            let mut from = query.from.map_or(EARLIEST, |from| from.max(EARLIEST));
            for sensor in sensors(conn, query)? {
                let row = |time, value, text| ReadingRow {
                    time,
                    tenant: query.tenant.clone(),
                    device: query.device.clone(),
                    metric: sensor.metric.clone(),
                    value,
                    text,
                    unit: sensor.unit.clone(),
                };
                if sensor.last_time.is_some_and(|last| last >= from) {
                    let found = numbers(conn, sensor.id, (from, query.to), page.most())?;
                    page.rows.extend(found.into_iter().map(|(time, value)| row(time, Some(value), None)));
                }
                if sensor.last_text_time.is_some_and(|last| last >= from) {
                    let found = texts(conn, sensor.id, (from, query.to), page.most())?;
                    page.rows.extend(found.into_iter().map(|(time, text)| row(time, None, Some(text))));
                }
                from = page.trim().unwrap_or(from);
            }
            Ok(page.cut())
        })
    }
}

/// The newest readings so far.
struct Page {
    rows: Vec<ReadingRow>,
    limit: usize,
}

impl Page {
    /// One more tells whether there are older ones.
    fn most(&self) -> i64 {
        i64::try_from(self.limit).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// The time of the newest reading for which there is no room any more.
    fn boundary(&self) -> Option<UtcMicros> {
        let over = self.rows.len().checked_sub(self.limit.saturating_add(1))?;
        self.rows.get(over).map(|row| row.time)
    }

    /// Leaves out what can't be on the page. Returns what others must reach to be.
    fn trim(&mut self) -> Option<UtcMicros> {
        self.rows.sort_by(|a, b| (a.time, &a.metric).cmp(&(b.time, &b.metric)));
        let boundary = self.boundary()?;
        self.rows.retain(|row| row.time >= boundary);
        Some(boundary)
    }

    fn cut(mut self) -> Stretch {
        if let Some(boundary) = self.boundary()
            && self.rows.last().is_some_and(|newest| newest.time > boundary)
        {
            self.rows.retain(|row| row.time > boundary);
            return Stretch { earlier: self.rows.first().map(|row| row.time), rows: self.rows };
        }
        // All of one instant, or all there are.
        let is_cut = self.rows.len() > self.limit;
        Stretch { earlier: self.rows.first().filter(|_| is_cut).map(|row| row.time), rows: self.rows }
    }
}

fn sensors(conn: &mut Conn<'_>, query: &Between) -> Result<Vec<Sensor>, StoreError> {
    let tenant = Some(query.tenant.clone());
    let filter = DeviceFilter { tenant, uid: Some(query.device.clone()), ..DeviceFilter::default() };
    let Some(device) = list_devices(conn, &filter, 1)?.pop() else {
        let detail = format!("there is no device {:?} of tenant {:?}", query.device, query.tenant);
        return Err(StoreError::Missing { what: "device", detail });
    };
    let mut sensors: Vec<Sensor> = with_db!(conn, |c| device_sensors::table
        .filter(device_sensors::device_id.eq(device.id))
        .select((
            device_sensors::id,
            device_sensors::metric,
            device_sensors::unit,
            device_sensors::last_time,
            device_sensors::last_text_time,
        ))
        .order(device_sensors::metric)
        .load(c))
    .during("finding the device's sensors")?;
    let Some(metric) = &query.metric else { return Ok(sensors) };
    if !sensors.iter().any(|sensor| sensor.metric == *metric) {
        let near = did_you_mean(metric, sensors.iter().map(|sensor| sensor.metric.as_str()));
        let hint = near.map(|near| format!("; {near}")).unwrap_or_default();
        let detail = format!("device {:?} has no metric {metric:?}{hint}", query.device);
        return Err(StoreError::Missing { what: "metric", detail });
    }
    sensors.retain(|sensor| sensor.metric == *metric);
    Ok(sensors)
}

fn numbers(conn: &mut Conn<'_>, id: i32, (from, to): Span, most: i64) -> Result<Vec<(UtcMicros, f64)>, StoreError> {
    with_db!(conn, |c, B| {
        let mut query = telemetry::table
            .filter(telemetry::sensor_id.eq(id))
            .filter(telemetry::time.ge(from))
            .select((telemetry::time, telemetry::value))
            .into_boxed::<B>();
        if let Some(to) = to {
            query = query.filter(telemetry::time.lt(to));
        }
        query.order(telemetry::time.desc()).limit(most).load(c)
    })
    .during("reading readings")
}

fn texts(conn: &mut Conn<'_>, id: i32, (from, to): Span, most: i64) -> Result<Vec<(UtcMicros, String)>, StoreError> {
    with_db!(conn, |c, B| {
        let mut query = telemetry_text::table
            .filter(telemetry_text::sensor_id.eq(id))
            .filter(telemetry_text::time.ge(from))
            .select((telemetry_text::time, telemetry_text::value))
            .into_boxed::<B>();
        if let Some(to) = to {
            query = query.filter(telemetry_text::time.lt(to));
        }
        query.order(telemetry_text::time.desc()).limit(most).load(c)
    })
    .during("reading text readings")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(time: i64, metric: &str) -> ReadingRow {
        ReadingRow {
            time: UtcMicros(time),
            tenant: "default".into(),
            device: "d".into(),
            metric: metric.into(),
            value: Some(1.0),
            text: None,
            unit: String::new(),
        }
    }

    /// As from a database with these readings.
    fn page(all: &[(i64, &str)], limit: usize, to: i64) -> (Vec<(i64, String)>, Option<i64>) {
        let mut page = Page { rows: Vec::new(), limit };
        let mut from = UtcMicros(i64::MIN);
        for metric in ["a", "b", "c"] {
            let mut of: Vec<i64> = all.iter().filter(|(_, name)| *name == metric).map(|(time, _)| *time).collect();
            of.sort_by(|a, b| b.cmp(a));
            let of = of.into_iter().filter(|time| *time < to && *time >= from.0).take(limit + 1);
            page.rows.extend(of.map(|time| row(time, metric)));
            from = page.trim().unwrap_or(from);
        }
        let Stretch { rows, earlier } = page.cut();
        (rows.into_iter().map(|row| (row.time.0, row.metric)).collect(), earlier.map(|time| time.0))
    }

    #[test]
    fn pages_give_every_reading_once_and_keep_an_instant_together() {
        let all: Vec<(i64, &str)> = (0..30).flat_map(|n| [(n, "a"), (n / 2 * 2, "b"), (n * n % 17, "c")]).collect();
        let mut all: Vec<(i64, &str)> =
            all.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        all.sort();
        for limit in 1..40 {
            let (mut seen, mut to) = (Vec::new(), i64::MAX);
            loop {
                let (rows, earlier) = page(&all, limit, to);
                assert!(rows.len() <= limit.max(3), "{limit}: {rows:?}");
                seen.splice(0..0, rows);
                match earlier {
                    Some(earlier) => to = earlier,
                    None => break,
                }
            }
            let seen: Vec<(i64, &str)> = seen.iter().map(|(time, metric)| (*time, metric.as_str())).collect();
            assert_eq!(seen, all, "{limit}");
        }
    }
}
