//! Readings and episodes over time, as SVG.

use std::fmt::Write;

use super::backtest::{PastEpisode, PastReading, PastValue};
use super::rule::Severity;
use crate::time::UtcMicros;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 160.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 22.0;
/// Columns that readings are drawn in: of each the least and the greatest, so that a day of readings stays a small file.
const COLUMNS: usize = 800;

/// One device's share of the picture.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    pub device: &'a str,
    pub metric: &'a str,
    pub readings: &'a [PastReading],
    pub episodes: &'a [PastEpisode],
}

/// A picture of the panels, one below the other, between two instants.
pub fn svg(title: &str, panels: &[Panel<'_>], from: UtcMicros, until: UtcMicros) -> String {
    let height = 30.0 + panels.len() as f64 * HEIGHT;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    for (place, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, 30.0 + place as f64 * HEIGHT, (from, until));
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel<'_>, y: f64, (from, until): (UtcMicros, UtcMicros)) {
    let span = (until.0.saturating_sub(from.0)).max(1) as f64;
    let x = |at: UtcMicros| LEFT + (at.0.saturating_sub(from.0) as f64 / span).clamp(0.0, 1.0) * (WIDTH - LEFT - 10.0);
    let points = numbers(panel, from, until);
    let (low, high) = points
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, value)| (low.min(*value), high.max(*value)));
    let (low, high) = if low < high {
        (low, high)
    } else if low.is_finite() {
        (low - 1.0, high + 1.0)
    } else {
        (0.0, 1.0)
    };
    let (top, bottom) = (y + TOP, y + HEIGHT - BOTTOM);
    let scaled = |value: f64| bottom - (value - low) / (high - low) * (bottom - top);
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{}\">{}: {}</text>",
        y + 20.0,
        escaped(panel.device),
        escaped(panel.metric)
    );
    for episode in panel.episodes {
        let (begin, end) = (x(episode.since), x(episode.resolved.unwrap_or(until)));
        let _ = writeln!(
            out,
            "<rect x=\"{begin:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\" fill-opacity=\"0.3\"><title>{}</title></rect>",
            (end - begin).max(1.0),
            bottom - top,
            colour(episode.severity),
            escaped(&format!("{} since {}: {}", episode.severity.word(), episode.since, episode.message)),
        );
    }
    let line: Vec<String> = points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), scaled(*value))).collect();
    let _ = writeln!(out, "<polyline fill=\"none\" stroke=\"#1f4e79\" points=\"{}\"/>", line.join(" "));
    for threshold in
        panel.episodes.iter().filter_map(|episode| episode.threshold).filter(|at| (low..=high).contains(at)).take(1)
    {
        let at = scaled(threshold);
        let right = WIDTH - 10.0;
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#888\" stroke-dasharray=\"4 3\"/>"
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"5\" y=\"{:.1}\">{high:.4}</text><text x=\"5\" y=\"{bottom:.1}\">{low:.4}</text>\
         <text x=\"{LEFT}\" y=\"{:.1}\">{from}</text><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{until}</text>",
        top + 8.0,
        bottom + 16.0,
        WIDTH - 10.0,
        bottom + 16.0,
    );
}

/// The metric's numbers between the instants; of many in one column the least and the greatest.
fn numbers(panel: &Panel<'_>, from: UtcMicros, until: UtcMicros) -> Vec<(UtcMicros, f64)> {
    let within =
        panel.readings.iter().filter(|one| *one.metric == *panel.metric && one.time >= from && one.time <= until);
    let all: Vec<(UtcMicros, f64)> = within
        .filter_map(|reading| match reading.value {
            PastValue::Number(value) => Some((reading.time, value)),
            PastValue::Text(_) => None,
        })
        .collect();
    let size = all.len().div_ceil(COLUMNS).max(1);
    if size <= 2 {
        return all;
    }
    let mut drawn = Vec::new();
    for column in all.chunks(size) {
        let least = column.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        let greatest = column.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let mut both: Vec<_> = [least, greatest].into_iter().flatten().copied().collect();
        both.sort_by_key(|(at, _)| *at);
        drawn.extend(both);
    }
    drawn
}

fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "#2e86c1",
        Severity::Warning => "#f39c12",
        Severity::Critical => "#c0392b",
    }
}

/// Text in XML 1.0, 2.4; control characters, which it can't have, are left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            letter if letter.is_control() => {}
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_each_episode_and_no_markup_of_others() {
        let at = |second: i64| UtcMicros(second * 1_000_000);
        let reading = |second, value| PastReading {
            time: at(second),
            metric: "t".into(),
            unit: "".into(),
            value: PastValue::Number(value),
        };
        let readings: Vec<_> = (0..5000).map(|second| reading(second, (second % 7) as f64)).collect();
        let episode = PastEpisode {
            id: "1".into(),
            tenant: "default".into(),
            device: "<d>".into(),
            group: None,
            metric: "t".into(),
            onset: at(10),
            since: at(10),
            resolved: None,
            severity: Severity::Critical,
            value: None,
            threshold: Some(3.0),
            unit: "".into(),
            message: "a < b & c".to_owned(),
        };
        let panel = Panel { device: "<d>", metric: "t", readings: &readings, episodes: &[episode] };
        let drawn = svg("Too hot", &[panel], at(0), at(5000));
        assert_eq!(drawn.matches("fill=\"#c0392b\"").count(), 1);
        assert!(drawn.contains("&lt;d&gt;: t") && drawn.contains("a &lt; b &amp; c") && !drawn.contains("<d>"));
        let points = drawn.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!((1000..=1700).contains(&points.split(' ').count()));
    }
}
