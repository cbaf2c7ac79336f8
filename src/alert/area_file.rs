//! `geofence` of a condition: `{ circle = [lat, lon, metres] }` or `{ polygon = [[lat, lon], …] }`.

use super::rule::Area;
use crate::config::document::{Node, Value};
use crate::config::fault::Wrong;
use crate::config::section::{Section, as_number};

/// Most corners of a polygon.
const MAX_CORNERS: usize = 256;
/// Half of a meridian's length, metres: a wider circle would be the whole Earth.
const MAX_RADIUS: f64 = 20_003_931.0;

/// None where it is absent or has a fault.
pub(super) fn read(section: &mut Section<'_>) -> Option<Area> {
    section.table("geofence", |section| {
        let circle = section.numbers("circle").and_then(|numbers| circle(section, &numbers));
        let polygon = polygon(section);
        match (section.has("circle"), section.has("polygon")) {
            (true, true) => {
                section.fault("polygon", "stands beside circle; give one of them");
                None
            }
            (false, false) => {
                if section.is_table() {
                    section.fault_here("expected { circle = [lat, lon, metres] } or { polygon = [[lat, lon], …] }");
                }
                None
            }
            (true, false) => circle,
            (false, true) => polygon,
        }
    })
}

fn circle(section: &Section<'_>, numbers: &[f64]) -> Option<Area> {
    let read = match *numbers {
        [_, _, radius] if !(radius > 0.0 && radius <= MAX_RADIUS) => {
            Err(format!("the radius, {radius} m, is not above 0 and at most {MAX_RADIUS}").into())
        }
        [latitude, longitude, radius] => point(latitude, longitude).map(|centre| Area::Circle { centre, radius }),
        _ => Err(format!("expected [latitude, longitude, metres], found {} numbers", numbers.len()).into()),
    };
    told(section, "circle", read)
}

fn polygon(section: &mut Section<'_>) -> Option<Area> {
    let items = section.items("polygon", "a list of corners, [[latitude, longitude], …]")?;
    let mut corners = Vec::with_capacity(items.len().min(MAX_CORNERS));
    let mut sound = items.len() <= MAX_CORNERS.saturating_add(1);
    if !sound {
        section.fault("polygon", format!("{} corners, {MAX_CORNERS} are the most", items.len()));
    }
    for (index, item) in items.iter().enumerate().take(MAX_CORNERS.saturating_add(1)) {
        match corner(item) {
            Ok(corner) => corners.push(corner),
            Err(wrong) => {
                section.fault_at(item.place.clone(), &format!("polygon[{index}]"), wrong);
                sound = false;
            }
        }
    }
    if !sound {
        return None;
    }
    // As GeoJSON closes its rings.
    if corners.len() > 1 && corners.first() == corners.last() {
        corners.pop();
    }
    let read = match shape_fault(&corners) {
        Some(wrong) => Err(Wrong::new(wrong)),
        None => Ok(Area::Polygon(corners)),
    };
    told(section, "polygon", read)
}

/// What is wrong with the corners together.
fn shape_fault(corners: &[(f64, f64)]) -> Option<String> {
    if corners.len() < 3 {
        return Some(format!("{} corners, at least 3 make an area", corners.len()));
    }
    if corners.len() > MAX_CORNERS {
        return Some(format!("{} corners, {MAX_CORNERS} are the most", corners.len()));
    }
    if sides(corners).any(|(a, b)| (a.1 - b.1).abs() > 180.0) {
        let message = "a side crosses the 180th meridian: make two areas of it, one on each side, by any = [{…}, {…}]";
        return Some(message.to_owned());
    }
    let doubled: f64 = sides(corners).map(|(a, b)| a.1 * b.0 - b.1 * a.0).sum();
    (doubled == 0.0).then(|| "its corners are on one line, so that nothing is inside".to_owned())
}

/// Each corner with the next, the last with the first.
fn sides(corners: &[(f64, f64)]) -> impl Iterator<Item = (&(f64, f64), &(f64, f64))> {
    corners.iter().zip(corners.iter().cycle().skip(1))
}

fn corner(item: &Node) -> Result<(f64, f64), Wrong> {
    let numbers = match &item.value {
        Value::List(items) => items.iter().map(|item| as_number(&item.value)).collect::<Option<Vec<f64>>>(),
        _ => None,
    };
    match numbers.as_deref() {
        Some(&[latitude, longitude]) => point(latitude, longitude),
        _ => Err("expected [latitude, longitude], two numbers".into()),
    }
}

/// Degrees of WGS 84.
fn point(latitude: f64, longitude: f64) -> Result<(f64, f64), Wrong> {
    let fits = |latitude: f64, longitude: f64| latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
    if fits(latitude, longitude) {
        return Ok((latitude, longitude));
    }
    let message = match latitude.abs() <= 90.0 {
        true => format!("the longitude {longitude} is not within -180 to 180"),
        false => format!("the latitude {latitude} is not within -90 to 90"),
    };
    let swapped = fits(longitude, latitude).then(|| "the latitude comes first".to_owned());
    Err(Wrong::new(message).suggest(swapped))
}

fn told(section: &Section<'_>, key: &str, read: Result<Area, Wrong>) -> Option<Area> {
    match read {
        Ok(area) => Some(area),
        Err(wrong) => {
            section.fault(key, wrong);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::document::Document;
    use crate::config::section::Findings;

    fn read_text(text: &str) -> (Option<Area>, Vec<String>) {
        let findings = Findings::default();
        let document = Document::parse(&Arc::from(Path::new("r.toml")), &format!("geofence = {text}"));
        let area = findings.read(&document, read);
        (area, findings.into_inner().faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn circles_and_polygons_are_read_and_a_closed_ring_is_opened() {
        let circle = Area::Circle { centre: (52.5, 13.4), radius: 500.0 };
        assert_eq!(read_text("{ circle = [52.5, 13.4, 500] }"), (Some(circle), Vec::new()));
        let polygon = Area::Polygon(vec![(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]);
        for ring in ["[[0, 0], [0, 1], [1, 1]]", "[[0, 0], [0, 1], [1, 1], [0, 0]]"] {
            assert_eq!(read_text(&format!("{{ polygon = {ring} }}")), (Some(polygon.clone()), Vec::new()));
        }
    }

    #[test]
    fn what_is_no_area_is_a_fault() {
        for (text, fault) in [
            ("{}", "geofence: expected { circle"),
            ("3", "geofence: expected a table, found an integer"),
            ("{ circle = [52.5, 13.4] }", "geofence.circle: expected [latitude, longitude, metres], found 2 numbers"),
            ("{ circle = [52.5, 13.4, 0] }", "the radius, 0 m, is not above 0"),
            ("{ circle = [152.5, 13.4, 10] }", "the latitude 152.5 is not within -90 to 90 (the latitude comes first)"),
            ("{ circle = [52.5, 213.4, 10] }", "the longitude 213.4 is not within -180 to 180"),
            ("{ circle = [0, 0, 1], polygon = [[0, 0], [0, 1], [1, 1]] }", "geofence.polygon: stands beside circle"),
            ("{ polygon = [[0, 0], [0, 1]] }", "geofence.polygon: 2 corners, at least 3 make an area"),
            ("{ polygon = [[0, 0], [0, 1], [0, 0]] }", "2 corners"),
            ("{ polygon = [] }", "0 corners"),
            ("{ polygon = [[0, 0], [0, 1], [0, 2]] }", "on one line"),
            ("{ polygon = [[0, 179], [0, -179], [1, 179]] }", "crosses the 180th meridian"),
            ("{ polygon = [[0, 0], [0, nan], [1, 1]] }", "geofence.polygon[1]: expected [latitude, longitude]"),
            ("{ polygon = [[0, 0], 'x', [1, 1]] }", "geofence.polygon[1]: expected [latitude, longitude]"),
        ] {
            let (area, faults) = read_text(text);
            assert_eq!(area, None, "{text}");
            assert!(faults.iter().any(|told| told.contains(fault)), "{text}: {faults:?}");
        }
    }
}
