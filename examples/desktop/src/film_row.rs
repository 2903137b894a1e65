//! A film as a row that can be clicked.

use eframe::egui::text::{LayoutJob, TextWrapping};
use eframe::egui::{Align2, CornerRadius, CursorIcon, Rect, Response, Role, Sense, Ui, WidgetInfo, pos2, vec2};

use crate::catalog::Film;
use crate::heart::heart;
use crate::theme::{self, ACCENT, LINE, RAISED, TEXT, WEAK};

/// What a recommendation has and other rows have not.
pub struct Rank {
    /// 1 and up.
    pub rank: usize,
    /// The similarity.
    pub score: f32,
    /// Length of the bar, 0 to 1.
    pub share: f32,
}

/// Draws `film`; clicking it is liking it, or not any more.
pub fn film_row(ui: &mut Ui, film: &Film, liked: bool, rank: Option<&Rank>) -> Response {
    let height = if rank.is_some() { 51.0 } else { 40.0 };
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::click());
    let response = response.on_hover_cursor(CursorIcon::PointingHand);
    response.widget_info(|| WidgetInfo::selected(Role::CheckBox, true, liked, &film.title));
    if !ui.is_rect_visible(rect) {
        return response;
    }
    let painter = ui.painter_at(rect);
    if response.hovered() {
        painter.rect_filled(rect, CornerRadius::same(6), RAISED);
    }
    let middle = rect.center().y;
    let mut left = rect.left() + 10.0;
    if let Some(Rank { rank, .. }) = rank {
        painter.text(pos2(left + 16.0, middle), Align2::RIGHT_CENTER, rank, theme::font(15.0), WEAK);
        left += 30.0;
    }
    let stripe = Rect::from_min_size(pos2(left, middle - 14.0), vec2(4.0, 28.0));
    painter.rect_filled(stripe, CornerRadius::same(2), film.color);
    left += 16.0;
    let end = rect.right() - if rank.is_some() { 246.0 } else { 34.0 };
    let mut title = LayoutJob::simple_singleline(film.title.clone(), theme::font(15.0), TEXT);
    title.wrap = TextWrapping::truncate_at_width(end - left);
    let title = painter.layout_job(title);
    painter.galley(pos2(left, middle - 8.0 - title.size().y / 2.0), title, TEXT);
    painter.text(pos2(left, middle + 10.0), Align2::LEFT_CENTER, film.details(), theme::font(12.0), WEAK);

    let place = pos2(rect.right() - 20.0, middle);
    if liked || response.hovered() {
        let color = if liked { ACCENT } else { WEAK };
        heart(&painter, place, 16.0, color, liked);
    }
    if let Some(Rank { score, share, .. }) = rank {
        let right = rect.right() - 44.0;
        painter.text(pos2(right, middle), Align2::RIGHT_CENTER, format!("{score:.3}"), theme::font(14.0), TEXT);
        let full = Rect::from_min_max(pos2(right - 190.0, middle - 3.0), pos2(right - 60.0, middle + 3.0));
        painter.rect_filled(full, CornerRadius::same(3), LINE);
        let bar = Rect::from_min_size(full.min, vec2(full.width() * share.clamp(0.03, 1.0), full.height()));
        painter.rect_filled(bar, CornerRadius::same(3), film.color);
    }
    response
}
