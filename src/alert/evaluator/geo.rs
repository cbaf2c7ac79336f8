//! Whether a place is within an area.

use crate::alert::rule::Area;

/// Mean radius of the Earth (IUGG), metres.
const EARTH: f64 = 6_371_008.8;

/// Whether (latitude, longitude), in degrees, is within.
pub(super) fn is_within(area: &Area, (latitude, longitude): (f64, f64)) -> bool {
    match area {
        Area::Circle { centre, radius } => distance(*centre, (latitude, longitude)) <= *radius,
        Area::Polygon(corners) => {
            let ends = corners.iter().cycle().skip(1);
            let crossed = corners.iter().zip(ends).filter(|((lat_a, lon_a), (lat_b, lon_b))| {
                (lat_a > &latitude) != (lat_b > &latitude)
                    && longitude < lon_a + (latitude - lat_a) / (lat_b - lat_a) * (lon_b - lon_a)
            });
            crossed.count() % 2 == 1
        }
    }
}

/// Metres along a great circle (haversine).
fn distance(a: (f64, f64), b: (f64, f64)) -> f64 {
    let (lat_a, lat_b) = (a.0.to_radians(), b.0.to_radians());
    let (north, east) = ((lat_b - lat_a) / 2.0, (b.1 - a.1).to_radians() / 2.0);
    let chord = north.sin().powi(2) + lat_a.cos() * lat_b.cos() * east.sin().powi(2);
    2.0 * EARTH * chord.clamp(0.0, 1.0).sqrt().asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_on_the_globe() {
        // A degree of latitude is 111.195 km.
        let near = |radius| is_within(&Area::Circle { centre: (52.0, 13.0), radius }, (53.0, 13.0));
        assert!(near(111_200.0) && !near(111_190.0));
        let over_the_line = Area::Circle { centre: (0.0, 179.9), radius: 30_000.0 };
        assert!(is_within(&over_the_line, (0.0, -179.9)));
    }

    #[test]
    fn polygons_may_be_hollow_at_a_side() {
        let corners =
            vec![(0.0, 0.0), (0.0, 4.0), (4.0, 4.0), (4.0, 3.0), (1.0, 3.0), (1.0, 1.0), (4.0, 1.0), (4.0, 0.0)];
        let area = Area::Polygon(corners);
        assert!(is_within(&area, (0.5, 2.0)) && is_within(&area, (3.0, 0.5)) && is_within(&area, (3.0, 3.5)));
        assert!(!is_within(&area, (3.0, 2.0)) && !is_within(&area, (5.0, 2.0)));
    }
}
