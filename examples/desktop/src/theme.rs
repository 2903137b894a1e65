//! Colours and sizes.

use eframe::egui::{Color32, Context, CornerRadius, FontFamily, FontId, Stroke, TextStyle, Theme, vec2};

/// Behind everything.
pub const BACKGROUND: Color32 = Color32::from_rgb(17, 19, 26);
/// Of side panels.
pub const PANEL: Color32 = Color32::from_rgb(23, 26, 35);
/// Of cards and rows under the pointer.
pub const RAISED: Color32 = Color32::from_rgb(33, 37, 49);
/// Lines.
pub const LINE: Color32 = Color32::from_rgb(44, 49, 64);
/// Text.
pub const TEXT: Color32 = Color32::from_rgb(224, 228, 240);
/// Text that stands back.
pub const WEAK: Color32 = Color32::from_rgb(134, 142, 166);
/// What is chosen or liked.
pub const ACCENT: Color32 = Color32::from_rgb(255, 117, 127);

/// A proportional font.
pub fn font(size: f32) -> FontId {
    FontId::new(size, FontFamily::Proportional)
}

/// Gives all widgets these colours.
pub fn apply(ctx: &Context) {
    ctx.set_theme(Theme::Dark);
    ctx.style_mut_of(Theme::Dark, |style| {
        style.text_styles = [
            (TextStyle::Small, font(12.0)),
            (TextStyle::Body, font(14.5)),
            (TextStyle::Button, font(14.0)),
            (TextStyle::Heading, font(24.0)),
            (TextStyle::Monospace, FontId::new(13.0, FontFamily::Monospace)),
        ]
        .into();
        style.spacing.item_spacing = vec2(8.0, 6.0);
        style.spacing.button_padding = vec2(10.0, 5.0);
        let visuals = &mut style.visuals;
        visuals.panel_fill = BACKGROUND;
        visuals.extreme_bg_color = BACKGROUND;
        visuals.override_text_color = Some(TEXT);
        visuals.selection.bg_fill = ACCENT.gamma_multiply(0.35);
        visuals.selection.stroke = Stroke::new(1.0, TEXT);
        let widgets = &mut visuals.widgets;
        for widget in [&mut widgets.inactive, &mut widgets.hovered, &mut widgets.active, &mut widgets.noninteractive] {
            widget.corner_radius = CornerRadius::same(6);
            widget.bg_stroke = Stroke::new(1.0, LINE);
        }
        widgets.inactive.weak_bg_fill = RAISED;
        widgets.hovered.weak_bg_fill = LINE;
    });
}
