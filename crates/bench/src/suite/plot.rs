//! Plots of the results: bars with whiskers, and curves of latencies.

use super::report::{Growth, Row, growths, rows};
use super::sample::{QUANTILES, Sample};
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

const WIDTH: u32 = 880;
const BAR: i32 = 26;
const LEFT: i32 = 160;
const RIGHT: i32 = 190;
const TOP: i32 = 62;
const OURS: RGBColor = RGBColor(213, 94, 0);
const OTHERS: RGBColor = RGBColor(130, 160, 190);
const FAILED: RGBColor = RGBColor(215, 215, 215);
/// Colours that colour-blind readers can tell apart. The order of the legend helps, too.
const COLOURS: [RGBColor; 8] = [
    OURS,
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
];

type Result = std::result::Result<(), Box<dyn Error>>;

/// Draws every workload at every setting, and the growth of costs with the number of keys.
pub(crate) fn draw_all(dir: &Path, samples: &[Sample]) -> Result {
    let rows = rows(samples);
    for row in &rows {
        let name = file_name(&format!("{} {} threads {} keys", row.workload, row.threads, row.keys));
        bars(&dir.join(format!("{name}.svg")), row)?;
        if row.cells.iter().any(|cell| cell.quantile(0).is_some()) {
            latencies(&dir.join(format!("{name}-latencies.svg")), row)?;
        }
    }
    for growth in growths(&rows) {
        let name = file_name(&format!("growth {} {} threads", growth.workload, growth.threads));
        draw_growth(&dir.join(format!("{name}.svg")), &growth)?;
    }
    Ok(())
}

/// A file name for a title: lower-case letters, digits, and single hyphens.
fn file_name(title: &str) -> String {
    let words = title.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

fn caption(row: &Row<'_>) -> String {
    format!("{}; {} threads, {} keys", row.workload, row.threads, row.keys)
}

/// Draws a bar for each store: the median, with whiskers from the least to the most.
fn bars(path: &Path, row: &Row<'_>) -> Result {
    let size = (WIDTH, (TOP + BAR * row.cells.len() as i32 + 12) as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let is_speed = row.cells[0].samples[0].is_speed;
    let unit = if is_speed { "thousand a second" } else { "see the title" };
    root.draw_text(&caption(row), &("sans-serif", 22).into_text_style(&root), (12, 10))?;
    let under = format!("{unit}; medians, least and most; grey: failed its check");
    root.draw_text(&under, &("sans-serif", 14).into_text_style(&root), (12, 38))?;

    let most = row.cells.iter().map(|cell| cell.max()).fold(0.0, f64::max);
    let scale = f64::from(WIDTH as i32 - LEFT - RIGHT) / most.max(f64::MIN_POSITIVE);
    let x = |figure: f64| LEFT + (figure * scale) as i32;
    let text = ("sans-serif", 15).into_text_style(&root);
    for (place, cell) in row.cells.iter().enumerate() {
        let top = TOP + BAR * place as i32;
        let middle = top + BAR / 2 - 2;
        let colour = match (cell.failed(), cell.store) {
            (true, _) => FAILED,
            (_, "fluxmap") => OURS,
            _ => OTHERS,
        };
        root.draw_text(cell.store, &text, (12, top + 3))?;
        let bar = [(LEFT, top), (x(cell.median()).max(LEFT + 1), top + BAR - 6)];
        root.draw(&Rectangle::new(bar, colour.filled()))?;
        let whisker = [(x(cell.min()), middle), (x(cell.max()), middle)];
        root.draw(&PathElement::new(whisker, BLACK))?;
        for end in [cell.min(), cell.max()] {
            root.draw(&PathElement::new([(x(end), middle - 4), (x(end), middle + 4)], BLACK))?;
        }
        let figure = if is_speed { cell.median() / 1000.0 } else { cell.median() };
        let figure = if figure < 100.0 { format!("{figure:.1}") } else { format!("{figure:.0}") };
        root.draw_text(&figure, &text, (x(cell.max()) + 8, top + 3))?;
    }
    root.present()?;
    Ok(())
}

/// Draws a curve for each store: latency against the share of the operations that took no longer.
fn latencies(path: &Path, row: &Row<'_>) -> Result {
    let root = SVGBackend::new(path, (WIDTH, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    // The last quantile is 100 %, which is infinitely far away on this logarithmic axis.
    let places: Vec<usize> = (0..QUANTILES.len() - 1).collect();
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let all: Vec<f64> =
        row.cells.iter().flat_map(|cell| places.iter().map(|&p| cell.quantile(p))).flatten().collect();
    let least = all.iter().copied().fold(f64::INFINITY, f64::min).max(1.0) / 1000.0;
    let most = all.iter().copied().fold(0.0, f64::max) / 1000.0;
    let right = nines(QUANTILES[QUANTILES.len() - 2]);
    let mut chart = ChartBuilder::on(&root)
        .caption(caption(row), ("sans-serif", 22))
        .margin(12)
        .margin_right(RIGHT as u32)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..right, (least..most * 1.1).log_scale())?;
    let label = |nines: &f64| format!("{}", 100.0 - 10_f64.powf(2.0 - nines));
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(5)
        .x_label_formatter(&label)
        .x_desc("operations that took no longer, %")
        .y_desc("microseconds")
        .label_style(("sans-serif", 15))
        .draw()?;
    for (line, cell) in row.cells.iter().enumerate() {
        let style = style(line, cell.store);
        let points = places
            .iter()
            .filter_map(|&place| Some((nines(QUANTILES[place]), cell.quantile(place)?.max(1.0) / 1000.0)));
        chart.draw_series(LineSeries::new(points.clone(), style))?;
        // The colours repeat after these stores, so the lines of the others get dots.
        if line >= COLOURS.len() {
            chart.draw_series(points.map(|point| Circle::new(point, 3, style.filled())))?;
        }
        legend(&root, line, cell.store)?;
    }
    root.present()?;
    Ok(())
}

/// Draws a line for each store: processor time against the number of keys, both logarithmic.
fn draw_growth(path: &Path, growth: &Growth<'_, '_>) -> Result {
    let (Some(first), Some(last)) = (growth.rows.first(), growth.rows.last()) else { return Ok(()) };
    let root = SVGBackend::new(path, (WIDTH, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let all: Vec<f64> =
        growth.rows.iter().flat_map(|row| row.cells.iter().filter_map(|cell| cell.cpu())).collect();
    let least = all.iter().copied().fold(f64::INFINITY, f64::min) / 1.2;
    let most = all.iter().copied().fold(0.0, f64::max) * 1.2;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{}; {} threads", growth.workload, growth.threads), ("sans-serif", 22))
        .margin(12)
        .margin_right(RIGHT as u32)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d((first.keys as f64..last.keys as f64).log_scale(), (least..most).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|keys| format!("{keys:.0}"))
        .x_desc("keys")
        .y_desc("µs of processor time")
        .label_style(("sans-serif", 15))
        .draw()?;
    for (line, cell) in first.cells.iter().enumerate() {
        let of_store = |row: &&Row<'_>| {
            let cell = row.cells.iter().find(|other| other.store == cell.store)?;
            Some((row.keys as f64, cell.cpu()?))
        };
        let points: Vec<(f64, f64)> = growth.rows.iter().filter_map(of_store).collect();
        let style = style(line, cell.store);
        chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, style.filled())))?;
        legend(&root, line, cell.store)?;
    }
    root.present()?;
    Ok(())
}

fn style(line: usize, store: &str) -> ShapeStyle {
    COLOURS[line % COLOURS.len()].stroke_width(if store == "fluxmap" { 4 } else { 2 })
}

/// Draws the legend entry of a line, right of the plot.
fn legend(root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>, line: usize, store: &str) -> Result {
    let at = (WIDTH as i32 - RIGHT + 20, 48 + 22 * line as i32);
    root.draw(&PathElement::new([at, (at.0 + 22, at.1)], style(line, store)))?;
    if line >= COLOURS.len() {
        root.draw(&Circle::new((at.0 + 11, at.1), 3, COLOURS[line % COLOURS.len()].filled()))?;
    }
    root.draw_text(store, &("sans-serif", 15).into_text_style(root), (at.0 + 28, at.1 - 8))?;
    Ok(())
}
