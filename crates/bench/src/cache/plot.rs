//! Plots of hit ratios.

use super::hits::Hits;
use super::trace::SOURCE;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

const SIZE: (u32, u32) = (880, 560);
/// Colours that colour-blind readers can tell apart. The order of the legend helps, too.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(150, 150, 150),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 0, 0),
    RGBColor(0, 0, 0),
    RGBColor(120, 80, 40),
    RGBColor(86, 180, 233),
];

/// Writes the plot of one trace: hit ratio against size, a line for each store.
pub(crate) fn draw(dir: &Path, hits: &[Hits]) -> Result<(), Box<dyn Error>> {
    let Some(first) = hits.first() else { return Ok(()) };
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("{}.svg", first.trace));
    let root = SVGBackend::new(&path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (picture, footer) = root.split_vertically(SIZE.1 as i32 - 24);
    footer.draw_text(SOURCE, &("sans-serif", 14).into_text_style(&footer), (12, 4))?;

    let sizes = hits.iter().map(|hits| hits.size_percent);
    let ratios = hits.iter().map(|hits| hits.hit_percent);
    let low = ratios.clone().fold(100.0, f64::min) - 2.0;
    let high = ratios.fold(0.0, f64::max) + 2.0;
    let widest = sizes.fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&picture)
        .caption(format!("Hit ratio on {}", first.trace), ("sans-serif", 24))
        .margin(12)
        .margin_right(150)
        .x_label_area_size(48)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..widest * 1.02, low.max(0.0)..high.min(100.0))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("entries that there is room for, % of the different keys")
        .y_desc("requests that find their key, %")
        .label_style(("sans-serif", 17))
        .draw()?;

    let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for hit in hits {
        let point = (hit.size_percent, hit.hit_percent);
        match lines.iter_mut().find(|(name, _)| *name == hit.store) {
            Some((_, points)) => points.push(point),
            None => lines.push((hit.store, vec![point])),
        }
    }
    // Order the legend from top to bottom as the lines are ordered at their right ends.
    let end = |points: &[(f64, f64)]| points.last().map_or(0.0, |point| point.1);
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by(|&a, &b| end(&lines[b].1).total_cmp(&end(&lines[a].1)));
    for (place, line) in order.into_iter().enumerate() {
        let (name, points) = &lines[line];
        let colour = COLOURS[line % COLOURS.len()];
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
        let at = (SIZE.0 as i32 - 144, 60 + 22 * place as i32);
        picture.draw(&PathElement::new([at, (at.0 + 22, at.1)], colour.stroke_width(2)))?;
        picture.draw_text(name, &("sans-serif", 17).into_text_style(&picture), (at.0 + 28, at.1 - 8))?;
    }
    root.present()?;
    Ok(())
}
