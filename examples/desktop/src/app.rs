//! The window: the library, what is recommended, and how the algorithms compare.

use eframe::egui::{
    self, CentralPanel, ComboBox, CornerRadius, Frame, Label, Margin, Panel, RichText, ScrollArea, Slider, Stroke,
    TextEdit, Ui,
};
use rails_wgpu::search::Algorithm;

use crate::catalog::{Film, YEARS, film, genres};
use crate::device::Chosen;
use crate::engine::{ALGORITHMS, Answer, Engine, Event, Point, Question};
use crate::film_row::{Rank, film_row};
use crate::heart::heart;
use crate::plot::{plot, readable};
use crate::screenshot::Screenshot;
use crate::theme::{self, ACCENT, BACKGROUND, LINE, PANEL, RAISED, TEXT, WEAK};

/// What is liked when the window opens for a screenshot: two tastes at once.
const SHOWN: [u32; 5] = [121, 123, 62, 124, 65];

/// Everything on the screen.
pub struct App {
    engine: Engine,
    device: String,
    why: String,
    films: Vec<Film>,
    /// What each film is searched by.
    film_words: Vec<String>,
    words: String,
    /// The films that `words` finds.
    found: Vec<usize>,
    likes: Vec<u32>,
    algorithm: Algorithm,
    genre: Option<&'static str>,
    since: u32,
    asked: Option<Question>,
    answer: Option<Answer>,
    points: Vec<Point>,
    is_idle: bool,
    failed: Option<String>,
    screenshot: Option<Screenshot>,
}

impl App {
    /// An app that searches on `chosen`, over items `ids`.
    pub fn new(ctx: &egui::Context, chosen: Chosen, ids: &[u32], screenshot: Option<Screenshot>) -> App {
        theme::apply(ctx);
        let wake = ctx.clone();
        let mut films: Vec<Film> = ids.iter().map(|&id| film(id)).collect();
        // The model's own first, and as many different ones in a row as there are.
        films.sort_by(|a, b| (&a.subtitle, &a.title).cmp(&(&b.subtitle, &b.title)));
        let film_words = films.iter().map(Film::words).collect();
        let found = (0..films.len()).collect();
        App {
            engine: Engine::start(chosen.backend, move || wake.request_repaint()),
            device: chosen.name,
            why: chosen.why,
            films,
            film_words,
            words: String::new(),
            found,
            likes: if screenshot.is_some() { SHOWN.to_vec() } else { Vec::new() },
            algorithm: ALGORITHMS[1],
            genre: None,
            since: *YEARS.start(),
            asked: None,
            answer: None,
            points: Vec::new(),
            is_idle: false,
            failed: None,
            screenshot,
        }
    }

    fn toggle(&mut self, id: u32) {
        match self.likes.iter().position(|&liked| liked == id) {
            Some(place) => _ = self.likes.remove(place),
            None => self.likes.push(id),
        }
    }

    /// Takes what the engine has done, and asks it for what the window needs.
    fn converse(&mut self) {
        for event in self.engine.events.try_iter() {
            match event {
                Event::Answered(answer) => self.answer = Some(answer),
                Event::Measured(point) => self.points.push(point),
                Event::Idle => self.is_idle = true,
                Event::Failed(what) => self.failed = Some(what),
            }
        }
        let App { algorithm, genre, since, is_idle, .. } = *self;
        let question = Question { likes: self.likes.clone(), algorithm, genre, since, is_warm: is_idle };
        if self.likes.is_empty() {
            (self.asked, self.answer) = (None, None);
        } else if self.asked.as_ref() != Some(&question) {
            self.engine.ask(question.clone());
            self.asked = Some(question);
        }
    }

    /// Whether everything that is going to be on the screen is there.
    fn is_settled(&self) -> bool {
        self.is_idle && self.answer.as_ref().map(|answer| &answer.question) == self.asked.as_ref()
    }

    fn header(&self, ui: &mut Ui) {
        ui.horizontal(|ui| {
            ui.label(RichText::new("Tonight").size(24.0).color(TEXT));
            ui.add_space(6.0);
            ui.label(RichText::new("recommendations with rails-wgpu").color(WEAK));
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                let chip = Frame::new()
                    .fill(RAISED)
                    .corner_radius(CornerRadius::same(12))
                    .inner_margin(Margin::symmetric(12, 4));
                let chip = chip.show(ui, |ui| ui.label(RichText::new(&self.device).size(12.5).color(TEXT)));
                chip.response.on_hover_text(&self.why);
                ui.label(RichText::new(&self.why).size(12.5).color(WEAK));
            });
        });
    }

    fn library(&mut self, ui: &mut Ui) {
        let note = match self.found.len() {
            n if n == self.films.len() => format!("{} films", with_commas(n)),
            n => format!("{} of {} films", with_commas(n), with_commas(self.films.len())),
        };
        title(ui, "Library", &note);
        let hint = RichText::new("Search by title or genre").color(WEAK);
        let field = ui.add(
            TextEdit::singleline(&mut self.words)
                .hint_text(hint)
                .desired_width(f32::INFINITY)
                .margin(Margin::symmetric(10, 7)),
        );
        ui.add_space(4.0);
        let mut is_changed = field.changed();
        if self.found.is_empty() {
            ui.add_space(40.0);
            ui.vertical_centered(|ui| {
                ui.label(RichText::new(format!("No film or genre is called “{}”.", self.words.trim())).color(WEAK));
                if ui.button("Show all films").clicked() {
                    self.words.clear();
                    is_changed = true;
                }
            });
        }
        if is_changed {
            let words = self.words.trim().to_lowercase();
            self.found = (0..self.films.len()).filter(|&i| self.film_words[i].contains(&words)).collect();
        }
        let mut clicked = None;
        ScrollArea::vertical().auto_shrink(false).show_rows(ui, 40.0, self.found.len(), |ui, rows| {
            for film in self.found[rows].iter().map(|&i| &self.films[i]) {
                if film_row(ui, film, self.likes.contains(&film.id), None).clicked() {
                    clicked = Some(film.id);
                }
            }
        });
        if let Some(id) = clicked {
            self.toggle(id);
        }
    }

    fn likes(&mut self, ui: &mut Ui) {
        let mut clicked = None;
        ui.horizontal_wrapped(|ui| {
            for &id in &self.likes {
                let film = film(id);
                let text = RichText::new(format!("{}  ×", film.title)).size(13.0).color(film.color);
                let chip = egui::Button::new(text).fill(RAISED).corner_radius(CornerRadius::same(12));
                if ui.add(chip).on_hover_text(format!("{}; click not to like it any more", film.details())).clicked() {
                    clicked = Some(id);
                }
            }
        });
        if let Some(id) = clicked {
            self.toggle(id);
        }
    }

    /// What may be recommended.
    fn filter(&mut self, ui: &mut Ui) {
        const ANY: &str = "Any genre";
        ui.horizontal(|ui| {
            ComboBox::from_id_salt("genre").selected_text(self.genre.unwrap_or(ANY)).show_ui(ui, |ui| {
                ui.selectable_value(&mut self.genre, None, ANY);
                for name in genres() {
                    ui.selectable_value(&mut self.genre, Some(name), name);
                }
            });
            ui.label(RichText::new("from").color(WEAK));
            ui.add(Slider::new(&mut self.since, YEARS));
        });
    }

    fn recommendations(&mut self, ui: &mut Ui) {
        title(ui, "For you", "");
        if let Some(what) = &self.failed {
            ui.label(RichText::new(what).color(ACCENT));
            return;
        }
        if self.likes.is_empty() {
            ui.add_space(60.0);
            ui.vertical_centered(|ui| {
                let (rect, _) = ui.allocate_exact_size(egui::vec2(56.0, 64.0), egui::Sense::hover());
                heart(ui.painter(), rect.center(), 52.0, LINE, true);
                ui.label(RichText::new("Like a film on the left, and what to watch next appears here.").color(WEAK));
            });
            return;
        }
        self.likes(ui);
        ui.add_space(8.0);
        self.filter(ui);
        ui.add_space(8.0);
        let Some(answer) = &self.answer else {
            ui.spinner();
            return;
        };
        let scores = || answer.hits.iter().map(|hit| hit.score);
        let (low, high) = scores().fold((f32::MAX, f32::MIN), |(low, high), score| (low.min(score), high.max(score)));
        let mut clicked = None;
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            if answer.hits.is_empty() {
                ui.label(RichText::new("No other film is of this genre and these years.").color(WEAK));
            }
            for (i, hit) in answer.hits.iter().enumerate() {
                // From a fifth for the last to the whole for the first.
                let share = 0.2 + 0.8 * (hit.score - low) / (high - low).max(f32::EPSILON);
                let rank = Rank { rank: i + 1, score: hit.score, share };
                if film_row(ui, &film(hit.id as u32), false, Some(&rank)).clicked() {
                    clicked = Some(hit.id as u32);
                }
            }
        });
        if let Some(id) = clicked {
            self.toggle(id);
        }
    }

    fn speed(&mut self, ui: &mut Ui) {
        title(ui, "Algorithm", "");
        ui.horizontal_wrapped(|ui| {
            for algorithm in ALGORITHMS {
                let text = RichText::new(algorithm.to_string()).size(13.0);
                if ui.selectable_label(self.algorithm == algorithm, text).clicked() {
                    self.algorithm = algorithm;
                }
            }
        });
        ui.add_space(10.0);
        let dash = || "–".to_string();
        let of = |value: fn(&Answer) -> String| self.answer.as_ref().map_or_else(dash, value);
        let searching = of(|answer| readable(answer.searching));
        let encoding = of(|answer| readable(answer.encoding));
        let scored = of(|answer| with_commas(answer.scored as usize));
        ui.columns(3, |columns| {
            number(&mut columns[0], &searching, "search");
            number(&mut columns[1], &encoding, "encode history");
            number(&mut columns[2], &scored, "items scored");
        });
        ui.add_space(14.0);
        let measured = format!("{} of {}", self.points.len(), ALGORITHMS.len());
        title(ui, "Measured here", if self.points.len() < ALGORITHMS.len() { &measured } else { "one user at a time" });
        let height = (ui.available_height() - 64.0).clamp(160.0, 420.0);
        if let Some(clicked) = plot(ui, &self.points, self.algorithm, height) {
            self.algorithm = clicked;
        }
        let text = "Up and to the left is better. The built-in model is tiny, and its films are made up; of larger models cheap \
                    first stages find about 99 %.";
        ui.add(Label::new(RichText::new(text).size(12.0).color(WEAK)).wrap());
    }
}

impl eframe::App for App {
    fn ui(&mut self, ui: &mut Ui, _: &mut eframe::Frame) {
        self.converse();
        let margin = |x, y| Frame::new().inner_margin(Margin::symmetric(x, y));
        Panel::top("header").frame(margin(20, 12).fill(PANEL)).show(ui, |ui| self.header(ui));
        let side = || margin(16, 14).fill(PANEL);
        Panel::left("library").exact_size(320.0).resizable(false).frame(side()).show(ui, |ui| self.library(ui));
        Panel::right("speed").exact_size(390.0).resizable(false).frame(side()).show(ui, |ui| self.speed(ui));
        CentralPanel::default().frame(margin(20, 14).fill(BACKGROUND)).show(ui, |ui| self.recommendations(ui));

        let (is_settled, failed) = (self.is_settled(), self.failed.clone());
        if let Some(screenshot) = &mut self.screenshot {
            screenshot.step(ui.ctx(), is_settled, failed);
        }
    }

    fn clear_color(&self, _: &egui::Visuals) -> [f32; 4] {
        BACKGROUND.to_normalized_gamma_f32()
    }
}

fn title(ui: &mut Ui, text: &str, note: &str) {
    ui.horizontal(|ui| {
        ui.label(RichText::new(text).size(17.0).color(TEXT));
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            ui.label(RichText::new(note).size(12.5).color(WEAK));
        });
    });
    ui.add_space(4.0);
}

/// `n` with a comma before each three digits.
fn with_commas(n: usize) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", with_commas(n / 1000), n % 1000) }
}

fn number(ui: &mut Ui, value: &str, what: &str) {
    let card = Frame::new().fill(BACKGROUND).stroke(Stroke::new(1.0, LINE)).corner_radius(CornerRadius::same(8));
    card.inner_margin(Margin::symmetric(10, 8)).show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.spacing_mut().item_spacing.y = 1.0;
        ui.label(RichText::new(value).size(18.0).color(TEXT));
        ui.label(RichText::new(what).size(12.0).color(WEAK));
    });
}
