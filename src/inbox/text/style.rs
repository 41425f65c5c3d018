//! What inline CSS says about whether something is seen. Imports nothing of this crate.

/// What declarations say. `None`: nothing.
#[derive(Clone, Copy, Default)]
pub(super) struct Style {
    /// `display:none`, or shown again.
    pub(super) none: Option<bool>,
    /// Taken away in a way that nothing inside can undo: opacity, clipped, off the page.
    pub(super) gone: bool,
    /// `mso-hide:all`.
    pub(super) mso: bool,
    pub(super) invisible: Option<bool>,
    /// Letters too small to be read.
    pub(super) tiny: Option<bool>,
    pub(super) color: Option<Color>,
    pub(super) background: Option<Color>,
    pub(super) inline: bool,
    pub(super) block: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Color {
    Rgb([u8; 3]),
    Clear,
    /// An image, a name that we do not know.
    Unknown,
}

/// How far two colours may be apart, over all three channels, and still not be told apart.
const ALIKE: u32 = 24;
/// Largest font that nobody reads, in pixels.
const UNREADABLE: f32 = 1.5;
/// How far off the page something has to be moved, in pixels.
const OFF_PAGE: f32 = -500.0;

impl Style {
    /// Reads `property: value; …`.
    pub(super) fn read(declarations: &str) -> Self {
        let text = without_comments(&declarations.to_ascii_lowercase());
        let mut style = Self::default();
        let (mut flat, mut clipped) = (false, false);
        for declaration in text.split(';') {
            let Some((property, value)) = declaration.split_once(':') else { continue };
            let value = value.trim().trim_end_matches("!important").trim_end();
            match property.trim() {
                "display" => {
                    style.none = Some(value == "none");
                    style.inline = value.starts_with("inline") || value == "contents";
                    style.block = matches!(value, "block" | "table" | "flex" | "grid" | "list-item");
                }
                "visibility" => style.invisible = Some(matches!(value, "hidden" | "collapse")),
                "opacity" => style.gone |= number(value).is_some_and(|n| n <= 0.05),
                "filter" => style.gone |= value.replace(' ', "") == "opacity(0)",
                "font-size" => style.tiny = tiny(value).or(style.tiny),
                "font" => style.tiny = value.split([' ', '/']).find_map(tiny).or(style.tiny),
                "mso-hide" => style.mso = value == "all",
                "color" => style.color = Some(color(value)),
                "background-color" => style.background = Some(color(value)),
                "background" => style.background = Some(background(value)),
                "max-height" | "height" | "max-width" | "width" => {
                    flat |= number(value).is_some_and(|n| n <= 1.0) && !value.ends_with('%')
                        || value.starts_with("0");
                }
                "overflow" | "overflow-x" | "overflow-y" => clipped |= value.starts_with("hidden"),
                "clip" => {
                    style.gone |= value.replace([' ', ','], "").starts_with("rect(0000)")
                        || value.replace(' ', "").starts_with("rect(1px,1px,1px,1px)")
                }
                "left" | "top" | "right" | "text-indent" | "margin-left" | "margin-top" => {
                    style.gone |= number(value).is_some_and(|n| n <= OFF_PAGE);
                }
                "transform" => style.gone |= value.replace(' ', "").starts_with("scale(0)"),
                _ => {}
            }
        }
        style.gone |= flat && clipped;
        style
    }

    /// Lets the declarations of `other` win.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            none: other.none.or(self.none),
            gone: self.gone || other.gone,
            mso: self.mso || other.mso,
            invisible: other.invisible.or(self.invisible),
            tiny: other.tiny.or(self.tiny),
            color: other.color.or(self.color),
            background: other.background.or(self.background),
            inline: if other.none.is_some() { other.inline } else { self.inline },
            block: if other.none.is_some() { other.block } else { self.block },
        }
    }

    /// True if it says nothing that could hide.
    pub(super) fn is_plain(&self) -> bool {
        self.none.is_none() && !self.gone && !self.mso && self.invisible.is_none() && self.tiny.is_none()
    }
}

/// True for letters that nobody sees before this background.
pub(super) fn unseen(color: Option<Color>, background: Option<Color>) -> bool {
    match (color, background) {
        (Some(Color::Clear), _) => true,
        (Some(Color::Rgb(a)), Some(Color::Rgb(b))) => {
            a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(b))).sum::<u32>() <= ALIKE
        }
        _ => false,
    }
}

/// The value of a colour, as CSS or an attribute writes it.
pub(super) fn color(value: &str) -> Color {
    let value = value.trim();
    if let Some(digits) = value.strip_prefix('#') {
        return hexadecimal(digits).unwrap_or(Color::Unknown);
    }
    if let Some(inside) = value.strip_prefix("rgb").and_then(|rest| rest.split_once('(')) {
        let parts: Vec<f32> = inside
            .1
            .trim_end_matches(')')
            .split([',', ' ', '/'])
            .filter(|part| !part.is_empty())
            .take(4)
            .filter_map(number)
            .collect();
        return match parts[..] {
            [_, _, _, alpha] if alpha <= 0.05 => Color::Clear,
            [r, g, b] | [r, g, b, _] => Color::Rgb([r as u8, g as u8, b as u8]),
            _ => Color::Unknown,
        };
    }
    match value {
        "white" => Color::Rgb([255; 3]),
        "black" => Color::Rgb([0; 3]),
        "red" => Color::Rgb([255, 0, 0]),
        "blue" => Color::Rgb([0, 0, 255]),
        "gray" | "grey" => Color::Rgb([128; 3]),
        "silver" => Color::Rgb([192; 3]),
        "whitesmoke" => Color::Rgb([245; 3]),
        "transparent" => Color::Clear,
        _ => hexadecimal(value).unwrap_or(Color::Unknown),
    }
}

/// The colour in the short form `background`; with an image, nobody knows.
fn background(value: &str) -> Color {
    if value.contains("url(") || value.contains("gradient") {
        return Color::Unknown;
    }
    if value.starts_with("rgb") {
        return color(value);
    }
    color(value.split(' ').next().unwrap_or_default())
}

fn hexadecimal(digits: &str) -> Option<Color> {
    let nibbles: Vec<u8> = digits.chars().take(9).map_while(|c| c.to_digit(16).map(|d| d as u8)).collect();
    match nibbles[..] {
        [r, g, b] if digits.len() == 3 => Some(Color::Rgb([r * 17, g * 17, b * 17])),
        [_, _, _, _, _, _, 0, 0] => Some(Color::Clear),
        [r, rr, g, gg, b, bb] | [r, rr, g, gg, b, bb, _, _] if matches!(digits.len(), 6 | 8) => {
            Some(Color::Rgb([r * 16 + rr, g * 16 + gg, b * 16 + bb]))
        }
        _ => None,
    }
}

/// Whether a size of letters is unreadable; `None` if it depends on what is around.
fn tiny(value: &str) -> Option<bool> {
    let number_of = number(value)?;
    if number_of <= 0.0 {
        return Some(true);
    }
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '+');
    matches!(unit, "px" | "pt").then_some(number_of <= UNREADABLE)
}

/// The number that a value begins with.
fn number(value: &str) -> Option<f32> {
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-' && c != '+');
    value[..end.unwrap_or(value.len())].parse().ok().filter(|n: &f32| n.is_finite())
}

pub(super) fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("/*") {
        kept.push_str(&rest[..at]);
        rest = rest[at + 2..].find("*/").map_or("", |end| &rest[at + 2 + end + 2..]);
    }
    kept.push_str(rest);
    kept
}
