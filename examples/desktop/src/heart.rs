//! A heart, which the fonts of egui lack.

use eframe::egui::{Color32, Mesh, Painter, Pos2, Shape, Stroke, pos2};

/// Points of the outline.
const POINTS: u32 = 40;

/// Draws one `size` wide around `center`, as an outline unless `is_full`.
pub fn heart(painter: &Painter, center: Pos2, size: f32, color: Color32, is_full: bool) {
    // x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t: 32 wide, from -17 to 12.
    let scale = size / 32.0;
    let point = |i: u32| {
        // Never at the notch or the tip: a line that turns back grows a spike there.
        let t = (i as f32 + 0.5) * std::f32::consts::TAU / POINTS as f32;
        let x = 16.0 * t.sin().powi(3);
        let y = 13.0 * t.cos() - 5.0 * (2.0 * t).cos() - 2.0 * (3.0 * t).cos() - (4.0 * t).cos();
        pos2(center.x + x * scale, center.y - (y + 2.5) * scale)
    };
    let outline: Vec<Pos2> = (0..POINTS).map(point).collect();
    if is_full {
        // A fan: the shape is not convex, but all of it can be seen from its centre.
        let mut mesh = Mesh::default();
        outline.iter().for_each(|&point| mesh.colored_vertex(point, color));
        mesh.colored_vertex(center, color);
        (0..POINTS).for_each(|i| mesh.add_triangle(POINTS, i, (i + 1) % POINTS));
        painter.add(Shape::mesh(mesh));
    }
    painter.add(Shape::closed_line(outline, Stroke::new(1.3, color)));
}
