//! Estimates of the width of text, since the font is not known.

/// Estimates the width of text in pixels, at a font size in pixels. It errs on the wide side.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(of_char).sum::<f64>() * size
}

/// Returns the greatest width of several labels.
pub(super) fn widest(labels: &[String], size: f64) -> f64 {
    labels.iter().map(|label| width(label, size)).fold(0.0, f64::max)
}

fn of_char(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | 'I' => 0.33,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '-' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.95,
        '0'..='9' | 'a'..='z' => 0.6,
        'A'..='Z' => 0.72,
        // Combining marks.
        '\u{300}'..='\u{36f}' => 0.0,
        '\u{2018}'..='\u{201f}' => 0.45,
        // Scripts from Hangul on are mostly wide.
        '\u{1100}'.. => 1.0,
        _ => 0.65,
    }
}

/// Estimates the width of a picture's title, which is bold.
pub(super) fn title_width(title: &str) -> f64 {
    width(title, 17.5)
}

/// Cuts a title to `room` pixels.
pub(super) fn fitted_title(title: &str, room: f64) -> String {
    fitted(title, 17.5, room)
}

/// Cuts text to `room` pixels, with an ellipsis if anything is removed.
pub(super) fn fitted(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_string();
    }
    let mut cut = String::new();
    let mut left = room - size;
    for c in text.chars() {
        left -= of_char(c) * size;
        if left < 0.0 {
            break;
        }
        cut.push(c);
    }
    cut.trim_end().to_string() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_text_fits() {
        assert_eq!(fitted("short", 12.0, 100.0), "short");
        for room in [20.0, 40.0, 61.0] {
            let cut = fitted("a rather long label, for a token", 12.0, room);
            assert!(cut.ends_with('…') && width(&cut, 12.0) <= room + 0.1, "{cut}");
        }
        assert_eq!(fitted("wide", 12.0, 0.0), "…");
    }
}
