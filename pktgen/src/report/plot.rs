//! Plots as inline SVG: lines and areas over a linear or logarithmic scale, coloured by the page's CSS.

use std::fmt::Write as _;

use crate::summary::whole;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// A scale of values, with the places that get a grid line and a label.
#[derive(Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to at least `max`, with about five round steps.
    pub(super) fn linear(max: f64, label: impl Fn(f64) -> String) -> Self {
        let max = if max > 0.0 { max } else { 1.0 };
        let magnitude = 10f64.powf((max / 5.0).log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|s| s * magnitude)
            .find(|s| max / s <= 5.5)
            .unwrap_or(magnitude * 10.0);
        let steps = u32::try_from(whole((max / step).ceil())).unwrap_or(1);
        let ticks = (0..=steps).map(|i| f64::from(i) * step).map(|v| (v, label(v))).collect();
        Self { low: 0.0, high: f64::from(steps) * step, is_log: false, ticks }
    }

    /// From 0 to exactly `max`, with about five round steps on the way.
    pub(super) fn linear_to(max: f64, label: impl Fn(f64) -> String) -> Self {
        let mut axis = Self::linear(max, label);
        axis.high = if max > 0.0 { max } else { 1.0 };
        axis.ticks.retain(|(v, _)| *v <= axis.high);
        axis
    }

    /// From the 1-2-5 step at or below `min` to the one at or above `max`; both above 0.
    pub(super) fn log(min: f64, max: f64, label: impl Fn(f64) -> String) -> Self {
        let steps = |from: f64| {
            let decade = 10f64.powf(from.log10().floor());
            (0..40).map(move |i| decade * 10f64.powi(i / 3) * [1.0, 2.0, 5.0][(i % 3) as usize])
        };
        let (min, max) = (min.max(1e-9), max.max(min * 1.01).max(1e-9));
        let low = steps(min).take_while(|v| *v <= min * 1.000_001).last().unwrap_or(min);
        let marks: Vec<f64> = steps(low).skip_while(|v| *v < low * 0.999_999).collect();
        let high = marks.iter().copied().find(|v| *v >= max * 0.999_999).unwrap_or(max);
        let within = marks.into_iter().take_while(|v| *v <= high * 1.000_001);
        let is_wide = high / low > 2000.0;
        let ticks = within
            .enumerate()
            .map(|(i, v)| {
                let is_decade = (v.log10() - v.log10().round()).abs() < 1e-6;
                (v, if is_wide && !is_decade && i > 0 { String::new() } else { label(v) })
            })
            .collect();
        Self { low, high, is_log: true, ticks }
    }

    /// Logarithmic with the ticks given.
    pub(super) fn marked(low: f64, high: f64, ticks: Vec<(f64, String)>) -> Self {
        Self { low, high, is_log: true, ticks }
    }

    /// Where a value lies, 0..=1.
    fn place(&self, value: f64) -> f64 {
        let at = if self.is_log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        at.clamp(0.0, 1.0)
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Area {
    /// A line.
    Open,
    /// A line with the area below it.
    Filled,
}

/// A plot under construction.
#[derive(Debug)]
pub(super) struct Plot {
    x: Axis,
    y: Axis,
    body: String,
}

impl Plot {
    pub(super) fn new(x: Axis, y: Axis) -> Self {
        Self { x, y, body: String::new() }
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (
            LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM),
        )
    }

    /// A series, in the colour of the CSS class.
    pub(super) fn series(&mut self, class: &str, area: Area, points: &[(f64, f64)]) {
        let mut path = String::new();
        for (i, (x, y)) in points.iter().enumerate() {
            let (px, py) = self.at(*x, *y);
            let _ = write!(path, "{}{px:.1} {py:.1}", if i == 0 { "M" } else { "L" });
        }
        if area == Area::Filled
            && let (Some(first), Some(last)) = (points.first(), points.last())
        {
            let base = HEIGHT - BOTTOM;
            let (from, to) = (self.at(first.0, 0.0).0, self.at(last.0, 0.0).0);
            let _ = write!(
                self.body,
                r#"<path class="area {class}" d="{path}L{to:.1} {base:.1}L{from:.1} {base:.1}Z"/>"#
            );
        }
        let _ = write!(self.body, r#"<path class="line {class}" d="{path}"/>"#);
    }

    /// A point with a word beside it; `text` must be free of `<` and `&`.
    pub(super) fn mark(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let (px, py) = self.at(x, y);
        // Below and to the right, where a rising line is not; else above and to the left.
        let is_low = py > HEIGHT - BOTTOM - 24.0;
        let (tx, ty) = if is_low { (px - 6.0, py - 8.0) } else { (px + 6.0, py + 17.0) };
        let anchor = if is_low || px > WIDTH - 130.0 { "end" } else { "start" };
        let _ = write!(
            self.body,
            r#"<circle class="{class}" cx="{px:.1}" cy="{py:.1}" r="3.5"/><text class="mark" x="{tx:.1}" y="{ty:.1}" text-anchor="{anchor}">{text}</text>"#
        );
    }

    /// The finished picture; `name` says what it shows to those who cannot see it.
    pub(super) fn svg(&self, name: &str) -> String {
        let mut grid = String::new();
        let (right, base) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in &self.y.ticks {
            let (_, y) = self.at(self.x.low, *value);
            let _ = write!(grid, r#"<path class="grid" d="M{LEFT} {y:.1}H{right}"/>"#);
            let _ = write!(
                grid,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{label}</text>"#,
                LEFT - 8.0,
                y + 4.0
            );
        }
        for (value, label) in &self.x.ticks {
            let (x, _) = self.at(*value, self.y.low);
            let _ = write!(grid, r#"<path class="grid" d="M{x:.1} {TOP}V{base}"/>"#);
            let _ = write!(
                grid,
                r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#,
                base + 18.0
            );
        }
        format!(
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{grid}{}</svg>"#,
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values_and_have_few_round_ticks() {
        for max in [0.0, 0.7, 1.0, 9.9, 10.0, 47_812.0, 3e6] {
            let axis = Axis::linear(max, |v| v.to_string());
            assert!(axis.high >= max && (2..=7).contains(&axis.ticks.len()), "{max}: {axis:?}");
        }
        for (min, max) in [(1.0, 1.0), (90.0, 110.0), (3e4, 4e4), (1e3, 9e8), (20.0, 50.0)] {
            let axis = Axis::log(min, max, |v| v.to_string());
            assert!(axis.low <= min * 1.001 && axis.high >= max * 0.999, "{min}..{max}: {axis:?}");
            assert!(axis.ticks.len() >= 2 && axis.ticks.len() < 25, "{min}..{max}: {axis:?}");
            assert!(axis.place(min) < axis.place(axis.high));
        }
    }
}
