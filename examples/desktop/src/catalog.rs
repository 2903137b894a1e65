//! Films for the items of the demo: made up, as its data are. Neighbouring ids follow one another in its histories, so twenty
//! of them make a genre; beyond the model's 220 items the same films go on with subtitles.

use eframe::egui::Color32;

/// The years of the films.
pub const YEARS: std::ops::RangeInclusive<u32> = 1950..=2024;

/// Items of a genre.
const SHELF: usize = 20;

/// A genre, and words that make its titles: each first with each second.
struct Genre {
    name: &'static str,
    color: Color32,
    first: [&'static str; 5],
    second: [&'static str; 4],
}

const fn genre(name: &'static str, rgb: [u8; 3], first: [&'static str; 5], second: [&'static str; 4]) -> Genre {
    Genre { name, color: Color32::from_rgb(rgb[0], rgb[1], rgb[2]), first, second }
}

const GENRES: [Genre; 11] = [
    genre(
        "Space",
        [122, 162, 247],
        ["Silent", "Distant", "Second", "Drifting", "Last"],
        ["Orbit", "Horizon", "Signal", "Moon"],
    ),
    genre(
        "Noir",
        [148, 156, 187],
        ["Midnight", "Crooked", "Velvet", "Rainy", "Smoky"],
        ["Alibi", "Avenue", "Witness", "Waltz"],
    ),
    genre(
        "Heist",
        [224, 175, 104],
        ["Clockwork", "Borrowed", "Paper", "Perfect", "Marble"],
        ["Vault", "Diamond", "Getaway", "Forger"],
    ),
    genre(
        "Road movie",
        [255, 158, 100],
        ["Open", "Dusty", "Coastal", "Borderline", "Long"],
        ["Highway", "Motel", "Detour", "Summer"],
    ),
    genre(
        "Romance",
        [247, 118, 142],
        ["Letters from", "A Night in", "Winter in", "Goodbye,", "Dancing in"],
        ["Lisbon", "Trieste", "Kyoto", "Bergen"],
    ),
    genre(
        "Western",
        [207, 143, 109],
        ["Copper", "Lonesome", "Broken", "Ten-Mile", "Coyote"],
        ["Canyon", "Creek", "Sheriff", "Saddle"],
    ),
    genre(
        "Documentary",
        [115, 218, 202],
        ["The Secret Life of", "A Year with", "Listening to", "The Age of", "In Praise of"],
        ["Moss", "Lighthouses", "Octopuses", "Bridges"],
    ),
    genre(
        "Fantasy",
        [187, 154, 247],
        ["The Glass", "The Hollow", "The Thornwood", "The Moonlit", "The Seventh"],
        ["Crown", "Kingdom", "Alchemist", "Gate"],
    ),
    genre(
        "Thriller",
        [219, 75, 75],
        ["Cold", "Blind", "Hidden", "Dead", "Final"],
        ["Harbour", "Protocol", "Passenger", "Frequency"],
    ),
    genre(
        "Comedy",
        [226, 214, 104],
        ["My Cousin's", "The Accidental", "Almost a", "Three Weeks of", "The Wrong"],
        ["Wedding", "Mayor", "Vacation", "Parrot"],
    ),
    genre(
        "Samurai",
        [158, 206, 106],
        ["The Quiet", "The Wandering", "The Crimson", "The Autumn", "The Nameless"],
        ["Blade", "Crane", "Bamboo", "Ronin"],
    ),
];

/// Words that make the subtitles of further films: each first with each second.
const SUBTITLES: ([&str; 10], [&str; 10]) = (
    ["Long", "Lost", "Last", "First", "Other", "Secret", "Golden", "Final", "Dark", "Bright"],
    ["Night", "Summer", "Chapter", "Return", "Winter", "Promise", "Road", "Reunion", "Letter", "Morning"],
);

/// A film.
pub struct Film {
    /// The item.
    pub id: u32,
    /// Made up.
    pub title: String,
    /// Of films beyond the model's own; else empty.
    pub subtitle: String,
    /// Of 1950 to 2024.
    pub year: u32,
    /// Name of its genre.
    pub genre: &'static str,
    /// Of its genre.
    pub color: Color32,
}

impl Film {
    /// What a search for words looks into.
    pub fn words(&self) -> String {
        format!("{} {} {}", self.title, self.subtitle, self.genre).to_lowercase()
    }

    /// Subtitle, genre and year.
    pub fn details(&self) -> String {
        let Film { subtitle, genre, year, .. } = self;
        if subtitle.is_empty() { format!("{genre} · {year}") } else { format!("{subtitle} · {genre} · {year}") }
    }
}

/// Names of all genres.
pub fn genres() -> impl Iterator<Item = &'static str> {
    GENRES.iter().map(|genre| genre.name)
}

/// The film that item `id`, 1 and up, stands for.
pub fn film(id: u32) -> Film {
    let place = id.saturating_sub(1) as usize;
    let Genre { name, color, first, second } = &GENRES[place / SHELF % GENRES.len()];
    // 7 has no factor in common with 20: all words come up early, each pair once.
    let pair = place * 7 % SHELF;
    let title = format!("{} {}", first[pair % 5], second[pair / 5]);
    let (series, (one, two)) = (place / (SHELF * GENRES.len()), SUBTITLES);
    let subtitle = match series {
        0 => String::new(),
        _ => {
            let pair = (series - 1) * 7 % 100;
            format!("The {} {}", one[pair % 10], two[pair / 10])
        }
    };
    let year = 1950 + (id.wrapping_mul(0x9e37_79b1) >> 16) % 75;
    Film { id, title, subtitle, year, genre: name, color: *color }
}
