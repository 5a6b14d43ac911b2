//! Charts as data, and their drawing as SVG.
//!
//! One form serves all: two axes, each linear, logarithmic or a list of names, and series of points, each with an
//! interval along either axis. The legend stands above the plot, never over the data; series differ in colour (Okabe and
//! Ito's palette, which colour-blind readers can tell apart) and in the shape of their marks.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::format;
use crate::quantity::Timed;

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn, first to last.
    pub series: Vec<Series>,
}

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it measures, with the unit.
    pub label: String,
    /// How values map to places.
    pub scale: Scale,
}

/// How values map to places.
#[derive(Clone, Debug, PartialEq)]
pub enum Scale {
    /// Evenly; the axis starts at zero where no value is below.
    Linear,
    /// By factors; values are positive.
    Log,
    /// Names: value i stands at the i-th. On a vertical axis the first is at the top.
    Names(Vec<String>),
}

/// Points that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend; an empty one is left out there.
    pub name: String,
    /// How it looks.
    pub look: Look,
    /// Its points.
    pub points: Vec<Point>,
}

/// How a series looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Marks in the i-th colour and shape.
    Marks(usize),
    /// The outlines of those marks.
    Outlines(usize),
    /// Marks joined by lines in the i-th colour and shape.
    Joined(usize),
    /// A grey line without marks: a limit. Limits differ in their dashes.
    Limit(usize),
}

/// A point with intervals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Along the horizontal axis.
    pub x: Extent,
    /// Along the vertical axis.
    pub y: Extent,
}

/// A value and its interval; both ends equal the value where there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    /// The value.
    pub at: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

impl From<f64> for Extent {
    fn from(at: f64) -> Extent {
        Extent { at, low: at, high: at }
    }
}

impl From<Timed> for Extent {
    fn from(value: Timed) -> Extent {
        Extent { at: value.median, low: value.low, high: value.high }
    }
}

impl Extent {
    /// 95 % of a normal error to either side.
    pub fn of_error(at: f64, error: f64) -> Extent {
        Extent { at, low: at - 1.96 * error, high: at + 1.96 * error }
    }
}

impl Point {
    /// A point at values or measured quantities.
    pub fn new(x: impl Into<Extent>, y: impl Into<Extent>) -> Point {
        Point { x: x.into(), y: y.into() }
    }
}

const WIDTH: i32 = 860;
const CHARACTER: f64 = 7.3; // average width at size 12 of wide faces
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0xE3, 0xE3, 0xE3);
const LIMIT: RGBColor = RGBColor(0x77, 0x77, 0x77);
/// Okabe and Ito, "Color universal design" (2008), without its black and its yellow, which is too pale on white.
const PALETTE: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
];
/// Lengths of dashes and gaps; the first is drawn without gaps.
const DASHES: [(f64, f64); 4] = [(1.0, 0.0), (7.0, 4.0), (2.0, 3.0), (12.0, 4.0)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a chart: SVG text, the same bytes for the same chart.
///
/// # Errors
/// A chart without points, or a value that its axis cannot show.
pub fn svg(chart: &Chart) -> Result<String> {
    let layout = Layout::of(chart)?;
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, (WIDTH as u32, layout.height as u32)).into_drawing_area();
        // The backend writes to memory; what it can still refuse is a bug in this file.
        layout.draw(chart, &area).map_err(|error| anyhow!("the figure cannot be drawn: {error}"))?;
        area.present().map_err(|error| anyhow!("the figure cannot be drawn: {error}"))?;
    }
    Ok(out)
}

/// Where everything stands, in pixels.
struct Layout {
    height: i32,
    plot: (i32, i32, i32, i32), // left, top, right, bottom
    legend: Vec<(usize, i32, i32)>,
    x: Span,
    y: Span,
    /// Series that are not limits.
    marked: usize,
}

/// An axis with its range fixed.
struct Span {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Layout {
    fn of(chart: &Chart) -> Result<Layout> {
        let x = Span::of(&chart.x, chart.series.iter().flat_map(|s| &s.points).map(|p| p.x))?;
        let y = Span::of(&chart.y, chart.series.iter().flat_map(|s| &s.points).map(|p| p.y))?;
        let widest = y.ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
        let y_label = if chart.y.label.is_empty() { 0 } else { 22 };
        let left = 14 + y_label + (widest as f64 * CHARACTER) as i32;
        let mut legend = Vec::new();
        let (mut at, mut line) = (left, 16);
        for (index, series) in chart.series.iter().enumerate().filter(|(_, series)| !series.name.is_empty()) {
            let width = 34 + (series.name.chars().count() as f64 * CHARACTER) as i32 + 18;
            if at + width > WIDTH && at > left {
                (at, line) = (left, line + 20);
            }
            legend.push((index, at, line));
            at += width;
        }
        let top = if legend.is_empty() { 14 } else { line + 20 };
        let marked = chart.series.iter().filter(|series| !matches!(series.look, Look::Limit(_))).count();
        let inner = match &y.scale {
            Scale::Names(names) => (names.len() as i32 * (8 * marked as i32).max(22)).max(60),
            _ => 340,
        };
        let bottom = top + inner;
        Ok(Layout { height: bottom + 54, plot: (left, top, WIDTH - 24, bottom), legend, x, y, marked })
    }

    fn place_x(&self, value: f64) -> i32 {
        let (left, _, right, _) = self.plot;
        left + (self.x.share(value) * f64::from(right - left)).round() as i32
    }

    fn place_y(&self, value: f64) -> i32 {
        let (_, top, _, bottom) = self.plot;
        let share = self.y.share(value);
        let down = if matches!(self.y.scale, Scale::Names(_)) { share } else { 1.0 - share };
        top + (down * f64::from(bottom - top)).round() as i32
    }

    fn draw(&self, chart: &Chart, area: &Area<'_>) -> Result<(), String> {
        let told = |error: DrawingAreaErrorKind<_>| error.to_string();
        let (left, top, right, bottom) = self.plot;
        let text = |size: i32, h: HPos, v: VPos| {
            TextStyle::from(("sans-serif", f64::from(size) * 1.24)).color(&INK).pos(Pos::new(h, v))
        };
        for (value, label) in &self.x.ticks {
            let x = self.place_x(*value);
            area.draw(&PathElement::new([(x, top), (x, bottom)], FAINT)).map_err(told)?;
            area.draw(&Text::new(label.as_str(), (x, bottom + 8), text(12, HPos::Center, VPos::Top))).map_err(told)?;
        }
        for (value, label) in &self.y.ticks {
            let y = self.place_y(*value);
            area.draw(&PathElement::new([(left, y), (right, y)], FAINT)).map_err(told)?;
            area.draw(&Text::new(label.as_str(), (left - 8, y), text(12, HPos::Right, VPos::Center))).map_err(told)?;
        }
        area.draw(&PathElement::new([(left, top), (left, bottom), (right, bottom)], INK)).map_err(told)?;
        let middle = ((left + right) / 2, bottom + 32);
        area.draw(&Text::new(chart.x.label.as_str(), middle, text(13, HPos::Center, VPos::Top))).map_err(told)?;
        let turned = text(13, HPos::Center, VPos::Top).transform(FontTransform::Rotate270);
        area.draw(&Text::new(chart.y.label.as_str(), (2, (top + bottom) / 2), turned)).map_err(told)?;
        let mut place = 0;
        for series in &chart.series {
            self.draw_series(series, self.aside(place), area)?;
            place += usize::from(!matches!(series.look, Look::Limit(_)));
        }
        for (index, x, y) in &self.legend {
            let series = &chart.series[*index];
            match series.look {
                Look::Limit(dash) => draw_line(area, &[(*x, *y), (*x + 26, *y)], LIMIT, 2, dash)?,
                Look::Marks(look) => draw_mark(area, (*x + 13, *y), look)?,
                Look::Outlines(look) => draw_outline(area, (*x + 13, *y), look)?,
                Look::Joined(look) => {
                    draw_line(area, &[(*x, *y), (*x + 26, *y)], colour(look), 2, 0)?;
                    draw_mark(area, (*x + 13, *y), look)?;
                }
            }
            let style = text(12, HPos::Left, VPos::Center);
            area.draw(&Text::new(series.name.as_str(), (*x + 34, *y), style)).map_err(told)?;
        }
        Ok(())
    }

    /// By how much the points of a series among names stand above or below their name, so that series do not hide each
    /// other.
    fn aside(&self, place: usize) -> i32 {
        match self.y.scale {
            Scale::Names(_) => (7.0 * (place as f64 - (self.marked.max(1) - 1) as f64 / 2.0)).round() as i32,
            _ => 0,
        }
    }

    fn draw_series(&self, series: &Series, aside: i32, area: &Area<'_>) -> Result<(), String> {
        let aside = if matches!(series.look, Look::Limit(_)) { 0 } else { aside };
        let places: Vec<(i32, i32)> =
            series.points.iter().map(|p| (self.place_x(p.x.at), self.place_y(p.y.at) + aside)).collect();
        let look = match series.look {
            Look::Limit(dash) => return draw_line(area, &places, LIMIT, 2, dash),
            Look::Marks(look) | Look::Outlines(look) => look,
            Look::Joined(look) => {
                draw_line(area, &places, colour(look), 2, 0)?;
                look
            }
        };
        for (point, place) in series.points.iter().zip(places) {
            let (x, y) = place;
            let across = (self.place_x(point.x.low), self.place_x(point.x.high));
            let along = (self.place_y(point.y.low) + aside, self.place_y(point.y.high) + aside);
            // An interval narrower than its mark would only blur it.
            if (across.1 - across.0).abs() > 8 {
                draw_line(area, &[(across.0, y), (across.1, y)], colour(look), 2, 0)?;
            }
            if (along.1 - along.0).abs() > 8 {
                draw_line(area, &[(x, along.0), (x, along.1)], colour(look), 2, 0)?;
            }
            match series.look {
                Look::Outlines(_) => draw_outline(area, place, look)?,
                _ => draw_mark(area, place, look)?,
            }
        }
        Ok(())
    }
}

fn colour(look: usize) -> RGBColor {
    PALETTE[look % PALETTE.len()]
}

fn draw_mark(area: &Area<'_>, (x, y): (i32, i32), look: usize) -> Result<(), String> {
    let style = colour(look).filled();
    let drawn = match look % 4 {
        0 => area.draw(&Circle::new((x, y), 4, style)),
        1 => area.draw(&TriangleMarker::new((x, y), 6, style)),
        2 => area.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], style)),
        _ => area.draw(&Polygon::new([(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)], style)),
    };
    drawn.map_err(|error| error.to_string())
}

fn draw_outline(area: &Area<'_>, (x, y): (i32, i32), look: usize) -> Result<(), String> {
    let style = colour(look).stroke_width(2);
    let closed = |corners: &[(i32, i32)]| {
        let around = corners.iter().chain(corners.first()).map(|(dx, dy)| (x + dx, y + dy));
        area.draw(&PathElement::new(around.collect::<Vec<_>>(), style))
    };
    let drawn = match look % 4 {
        0 => area.draw(&Circle::new((x, y), 4, style)),
        1 => closed(&[(0, -6), (6, 4), (-6, 4)]),
        2 => closed(&[(-4, -4), (4, -4), (4, 4), (-4, 4)]),
        _ => closed(&[(0, -6), (6, 0), (0, 6), (-6, 0)]),
    };
    drawn.map_err(|error| error.to_string())
}

/// A polyline; `dash` chooses from [`DASHES`].
fn draw_line(area: &Area<'_>, places: &[(i32, i32)], colour: RGBColor, width: u32, dash: usize) -> Result<(), String> {
    let style = colour.stroke_width(width);
    let (on, off) = DASHES[dash % DASHES.len()];
    if off == 0.0 {
        return area.draw(&PathElement::new(places.to_vec(), style)).map_err(|error| error.to_string());
    }
    for pair in places.windows(2) {
        let [(x0, y0), (x1, y1)] = [pair[0], pair[1]].map(|(x, y)| (f64::from(x), f64::from(y)));
        let length = (x1 - x0).hypot(y1 - y0);
        let mut start = 0.0;
        while start < length {
            let at = |place: f64| {
                let share = place.min(length) / length;
                ((x0 + (x1 - x0) * share).round() as i32, (y0 + (y1 - y0) * share).round() as i32)
            };
            area.draw(&PathElement::new([at(start), at(start + on)], style)).map_err(|error| error.to_string())?;
            start += on + off;
        }
    }
    Ok(())
}

impl Span {
    fn of(axis: &Axis, extents: impl Iterator<Item = Extent>) -> Result<Span> {
        let (mut low, mut high, mut any) = (f64::INFINITY, f64::NEG_INFINITY, false);
        for Extent { at, low: l, high: h } in extents {
            any = true;
            if ![at, l, h].iter().all(|v| v.is_finite()) || (axis.scale == Scale::Log && l.min(at) <= 0.0) {
                return Err(anyhow!("{at} [{l}, {h}] cannot stand on the axis '{}'", axis.label));
            }
            low = low.min(l).min(at);
            high = high.max(h).max(at);
        }
        if !any {
            return Err(anyhow!("a figure over '{}' has no points", axis.label));
        }
        let ticks = match &axis.scale {
            Scale::Names(names) => {
                (low, high) = (-0.5, names.len() as f64 - 0.5);
                names.iter().enumerate().map(|(i, name)| (i as f64, name.clone())).collect()
            }
            Scale::Log => {
                (low, high) = (low / 1.25, high * 1.25);
                log_ticks(low, high)
            }
            Scale::Linear => {
                let room = if high > low { (high - low) * 0.06 } else { high.abs().max(1.0) * 0.1 };
                low = if low >= 0.0 && low < 0.6 * high { 0.0 } else { low - room };
                high += room;
                linear_ticks(low, high)
            }
        };
        Ok(Span { scale: axis.scale.clone(), low, high, ticks })
    }

    /// 0 at the low end, 1 at the high one.
    fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
            _ => (value - self.low) / (self.high - self.low),
        }
    }
}

/// Multiples of 1, 2 or 5 times a power of ten: at most seven.
fn linear_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(rough);
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|i| (i as f64 * step, format!("{:.decimals$}", i as f64 * step))).collect()
}

/// Powers of ten, and where there are few of them their doubles and fivefolds as well.
fn log_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let decades = (high / low).log10();
    let multiples: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let values = (first..=last).flat_map(|power| multiples.iter().map(move |m| m * 10f64.powi(power)));
    values.filter(|v| (low..=high).contains(v)).map(|v| (v, format::number(v, 1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let interval = Timed { median: 10.0, low: 5.0, high: 40.0, n: 9 };
        Chart {
            x: Axis { label: "speed, GB/s".into(), scale: Scale::Log },
            y: Axis { label: String::new(), scale: Scale::Names(vec!["first & best".into(), "second".into()]) },
            series: vec![
                Series { name: "a".into(), look: Look::Marks(0), points: vec![Point::new(interval, 0.0)] },
                Series { name: "b".into(), look: Look::Joined(1), points: vec![Point::new(1.0, 1.0)] },
                Series {
                    name: "limit".into(),
                    look: Look::Limit(1),
                    points: vec![Point::new(30.0, -0.5), Point::new(30.0, 1.5)],
                },
            ],
        }
    }

    #[test]
    fn the_same_chart_gives_the_same_bytes_and_shows_everything() {
        let first = svg(&chart()).unwrap();
        assert_eq!(first, svg(&chart()).unwrap());
        for text in ["speed, GB/s", "first &amp; best", "second", "limit", "\n10\n"] {
            assert!(first.contains(text), "{text} is missing in {first}");
        }
        assert!(first.starts_with("<svg ") && first.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn values_that_an_axis_cannot_show_are_refused() {
        let mut wrong = chart();
        wrong.series[0].points[0] = Point::new(0.0, 0.0);
        assert!(svg(&wrong).unwrap_err().to_string().contains("speed, GB/s"));
        wrong.series.clear();
        assert!(svg(&wrong).unwrap_err().to_string().contains("no points"));
    }

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        let texts = |ticks: Vec<(f64, String)>| ticks.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts(linear_ticks(0.0, 1.06)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(linear_ticks(-3.0, 11.0)), ["0", "5", "10"]);
        assert_eq!(texts(log_ticks(0.8, 12.0)), ["1", "2", "5", "10"]);
        assert_eq!(texts(log_ticks(0.5, 2e6)).first().unwrap(), "1");
    }

    #[test]
    fn a_legend_that_is_too_long_goes_on_below() {
        let mut long = chart();
        for i in 0..12 {
            let name = format!("a series with quite a long name {i}");
            long.series.push(Series { name, look: Look::Marks(i), points: vec![Point::new(2.0, 0.0)] });
        }
        let layout = Layout::of(&long).unwrap();
        assert!(layout.legend.iter().all(|(_, x, _)| *x < WIDTH - 100));
        assert!(
            layout.legend.last().unwrap().2 > layout.legend[0].2 && layout.legend.last().unwrap().2 < layout.plot.1
        );
    }
}
