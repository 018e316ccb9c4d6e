//! Ticks at round numbers along an axis, and number formatting.

/// The ticks of an axis and their labels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ticks {
    /// Values of the ticks.
    pub(super) at: Vec<f64>,
    /// Labels of the ticks.
    pub(super) labels: Vec<String>,
    /// All labels must be multiplied by ten to this power.
    pub(super) exponent: i32,
}

impl Ticks {
    /// Returns the name of the axis, followed by the power of ten of its labels.
    pub(super) fn name_with_power(&self, name: &str) -> String {
        match self.exponent {
            0 => name.to_string(),
            power => format!("{name}  ×10{}", superscript(power)).trim_start().to_string(),
        }
    }
}

/// Returns whether a number is finite and small enough for differences and quotients to be finite too.
pub(super) fn is_drawable(value: f64) -> bool {
    value.abs() < 1e150
}

/// Returns about `count` ticks within `low..=high`, at multiples of 1, 2 or 5 times a power of ten.
pub(super) fn linear(low: f64, high: f64, count: usize) -> Ticks {
    multiples(low, high, step(high - low, count))
}

/// Returns ticks like [`linear`], but only at integers.
pub(super) fn integers(low: f64, high: f64, count: usize) -> Ticks {
    multiples(low, high, step(high - low, count).max(1.0))
}

/// Widens `low..=high` to begin and end at ticks. Returns the new range and its ticks.
pub(super) fn widened(low: f64, high: f64, count: usize) -> ((f64, f64), Ticks) {
    let step = step(high - low, count);
    let (low, high) = ((low / step + 1e-6).floor() * step, (high / step - 1e-6).ceil() * step);
    ((low, high), multiples(low, high, step))
}

fn multiples(low: f64, high: f64, step: f64) -> Ticks {
    let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
    let at: Vec<f64> = (0..=(last - first).max(0.0) as usize).map(|index| (first + index as f64) * step).collect();
    let largest = at.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    // Numbers like 0.00002 and 2,000,000 are long, so the axis' name shows their common power of ten instead.
    let exponent = match largest {
        1e-3..1e6 | 0.0 => 0,
        _ => (largest.log10().floor() as i32).max(-300),
    };
    let unit = 10f64.powi(exponent);
    let decimals = (exponent - (step.log10() + 1e-9).floor() as i32).clamp(0, 12) as usize;
    let labels = at.iter().map(|value| decimal(value / unit, decimals)).collect();
    Ticks { at, labels, exponent }
}

fn step(span: f64, count: usize) -> f64 {
    let rough = span.max(f64::MIN_POSITIVE) / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough * (1.0 - 1e-9));
    step.unwrap_or(10.0 * power)
}

/// Returns ticks at powers of ten within the positive range `low..=high`. If these are few, multiples are added, and if
/// they are more than `count`, only every second, third and so on is kept.
pub(super) fn logarithmic(low: f64, high: f64, count: usize) -> Ticks {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let decades = (high / low).log10();
    let multiples: &[u32] = if decades <= 0.8 {
        &[1, 2, 3, 4, 5, 6, 8]
    } else if decades <= 3.0 {
        &[1, 2, 5]
    } else {
        &[1]
    };
    let every = ((last - first) as usize).div_ceil(count.max(1)).max(1);
    let inside = |&(multiple, power): &(u32, i32)| {
        let value = f64::from(multiple) * 10f64.powi(power);
        value >= low * (1.0 - 1e-9) && value <= high * (1.0 + 1e-9)
    };
    let powers = (first..=last).step_by(if multiples.len() > 1 { 1 } else { every });
    let found = powers.flat_map(|power| multiples.iter().map(move |&multiple| (multiple, power)));
    let found: Vec<(u32, i32)> = found.filter(inside).collect();
    if found.len() < 2 {
        return linear(low, high, count);
    }
    let at = found.iter().map(|&(multiple, power)| f64::from(multiple) * 10f64.powi(power)).collect();
    Ticks { at, labels: found.into_iter().map(|(multiple, power)| scientific(multiple, power)).collect(), exponent: 0 }
}

fn scientific(multiple: u32, power: i32) -> String {
    match (multiple, power) {
        (_, -2..=4) => decimal(f64::from(multiple) * 10f64.powi(power), -power.min(0) as usize),
        (1, _) => format!("10{}", superscript(power)),
        _ => format!("{multiple}×10{}", superscript(power)),
    }
}

/// Formats a number with a fixed number of decimals, and commas between thousands.
pub(super) fn decimal(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let is_zero = text.chars().all(|c| matches!(c, '0' | '.'));
    format!("{}{grouped}{fraction}", if value < 0.0 && !is_zero { "−" } else { "" })
}

/// Formats a number with three or four significant digits.
pub(crate) fn significant(value: f64) -> String {
    if value.is_nan() {
        return "undefined".to_string();
    }
    if value.is_infinite() {
        return if value < 0.0 { "−∞" } else { "∞" }.to_string();
    }
    let size = value.abs();
    if size < 1e9 && value.fract() == 0.0 {
        return decimal(value, 0);
    }
    if (1e-3..1e9).contains(&size) {
        return decimal(value, (3 - size.log10().floor() as i32).clamp(0, 6) as usize);
    }
    let text = format!("{value:.2e}");
    let (number, power) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{}×10{}", number.replace('-', "−"), superscript(power.parse().unwrap_or(0)))
}

/// Formats an integer as an exponent, such as ⁻³.
pub(super) fn superscript(number: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let raised = |c: char| c.to_digit(10).and_then(|digit| DIGITS.get(digit as usize).copied()).unwrap_or('⁻');
    number.to_string().chars().map(raised).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(ticks: Ticks) -> String {
        ticks.labels.join(" ")
    }

    #[test]
    fn labels_are_round() {
        assert_eq!(labels(linear(0.0, 1.0, 5)), "0.0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(labels(linear(-3.0, 7.0, 5)), "−2 0 2 4 6");
        assert_eq!(labels(linear(1.0, 2100.0, 5)), "500 1,000 1,500 2,000");
        assert_eq!((labels(integers(1.0, 3.0, 9)), labels(integers(4.75, 5.25, 9))), ("1 2 3".into(), "5".into()));
        assert_eq!(labels(integers(1.0, 2100.0, 5)), "500 1,000 1,500 2,000");
        let rates = linear(0.0, 5e-5, 5);
        assert_eq!((labels(rates.clone()), rates.exponent), ("0 1 2 3 4 5".to_string(), -5));
        let tokens = linear(0.0, 3e7, 3);
        assert_eq!((labels(tokens.clone()), tokens.exponent), ("0 1 2 3".to_string(), 7));
        assert_eq!(labels(linear(0.871, 0.8993, 4)), "0.88 0.89");
        assert_eq!(labels(logarithmic(0.01, 100.0, 5)), "0.01 0.1 1 10 100");
        assert_eq!(labels(logarithmic(0.3, 40.0, 5)), "0.5 1 2 5 10 20");
        assert_eq!(labels(logarithmic(1e-8, 1e8, 4)), "10⁻⁸ 10⁻⁴ 1 10,000 10⁸");
        assert_eq!(labels(logarithmic(4.1, 4.9, 4)), "4.2 4.4 4.6 4.8");
        let (range, ticks) = widened(0.12, 0.87, 4);
        assert_eq!((range, labels(ticks)), ((0.0, 1.0), "0.0 0.2 0.4 0.6 0.8 1.0".to_string()));
    }

    #[test]
    fn values_are_short() {
        let said = [0.0, 0.89678, 1234567.0, 12.3456, 2e-5, -0.5, -8e-309, f64::NAN].map(significant);
        assert_eq!(said, ["0", "0.8968", "1,234,567", "12.35", "2.00×10⁻⁵", "−0.5000", "−8.00×10⁻³⁰⁹", "undefined"]);
    }

    proptest! {
        #[test]
        fn ticks_are_inside_and_few(low in -1e9..1e9f64, span in 1e-3..1e9f64, count in 2usize..12) {
            let ((low, high), ticks) = widened(low, low + span, count);
            prop_assert!((2..=count + 3).contains(&ticks.at.len()), "{ticks:?}");
            let slack = 1e-5 * (high - low);
            prop_assert!(ticks.at.iter().all(|&at| at >= low - slack && at <= high + slack));
            let mut labels = ticks.labels.clone();
            labels.dedup();
            prop_assert_eq!(labels.len(), ticks.at.len());
        }
    }
}
