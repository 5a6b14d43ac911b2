//! How numbers are written in reports and terminals.

use crate::quantity::Timed;

/// `value` with `digits` significant digits, without exponent for the sizes that occur, and with `,` between thousands.
pub fn number(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "–".to_string();
    }
    if value == 0.0 {
        return "0".to_string();
    }
    let digits = digits.max(1);
    // Rounding first: 9.996 with three digits is 10.0, which has one digit more before the point.
    let magnitude = |v: f64| v.abs().log10().floor() as i32;
    let step = 10f64.powi(magnitude(value) + 1 - digits as i32);
    let rounded = (value / step).round() * step;
    let decimals = (digits as i32 - 1 - magnitude(rounded)).max(0) as usize;
    if decimals > 9 {
        return format!("{value:.*e}", digits - 1);
    }
    grouped(&format!("{rounded:.decimals$}"))
}

/// An integer with `,` between thousands.
pub fn integer(value: u64) -> String {
    grouped(&value.to_string())
}

fn grouped(text: &str) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// `12.3 [12.1, 12.6]`.
pub fn timed(value: &Timed, digits: usize) -> String {
    format!("{} [{}, {}]", number(value.median, digits), number(value.low, digits), number(value.high, digits))
}

/// `1.23× [1.21, 1.25]`.
pub fn ratio(value: &Timed, digits: usize) -> String {
    format!("{}× [{}, {}]", number(value.median, digits), number(value.low, digits), number(value.high, digits))
}

/// `1.234 ± 0.012`: a value with its standard error.
pub fn with_error(value: f64, error: f64, digits: usize) -> String {
    format!("{} ± {}", number(value, digits), number(error, 2))
}

/// `1.23 [1.21, 1.25]`: a value with the ends of its interval.
pub fn interval(value: f64, low: f64, high: f64, digits: usize) -> String {
    format!("{} [{}, {}]", number(value, digits), number(low, digits), number(high, digits))
}

/// `1.2 % more` or `1.2 % less`.
pub fn more_or_less(difference: f64) -> String {
    let word = if difference < 0.0 { "less" } else { "more" };
    format!("{} % {word}", number(difference.abs() * 100.0, 2))
}

/// A share as per cent: `87 %` or, below ten per cent, `8.7 %`.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent.abs() >= 10.0 { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}

/// `87 % [85, 89]`.
pub fn timed_percent(share: &Timed) -> String {
    let end = |value: f64| percent(value).replace(" %", "");
    format!("{} [{}, {}]", percent(share.median), end(share.low), end(share.high))
}

/// Bytes in binary units: `48 KiB`, `2 MiB`, `23.4 GiB`.
pub fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = if value.fract() == 0.0 { format!("{value:.0}") } else { number(value, 3) };
    format!("{text} {}", units[unit])
}

/// A time in the unit that suits it: `850 ns`, `12.3 µs`, `4.56 ms`, `7.89 s`.
pub fn seconds(seconds: f64) -> String {
    let (scale, unit) = unit_of(seconds);
    format!("{} {unit}", number(seconds * scale, 3))
}

/// A measured time in the unit that suits its median: `12.3 µs [12.1, 12.6]`.
pub fn timed_seconds(value: &Timed) -> String {
    let (scale, unit) = unit_of(value.median);
    let show = |seconds: f64| number(seconds * scale, 3);
    format!("{} {unit} [{}, {}]", show(value.median), show(value.low), show(value.high))
}

fn unit_of(seconds: f64) -> (f64, &'static str) {
    match seconds {
        s if s < 1e-6 => (1e9, "ns"),
        s if s < 1e-3 => (1e6, "µs"),
        s if s < 1.0 => (1e3, "ms"),
        _ => (1.0, "s"),
    }
}

/// A duration as people say it: `45 s`, `3 min 05 s`, `1 h 02 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// `one`, `two`, … up to twelve, then digits; for sentences.
pub fn count(number: usize, one: &str, many: &str) -> String {
    const WORDS: [&str; 13] =
        ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    let word = WORDS.get(number).map_or_else(|| integer(number as u64), ToString::to_string);
    format!("{word} {}", if number == 1 { one } else { many })
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(items: &[impl AsRef<str>]) -> String {
    match items {
        [] => "none".to_string(),
        [one] => one.as_ref().to_string(),
        [rest @ .., last] => {
            let rest: Vec<&str> = rest.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", rest.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_significant_digits() {
        for (value, digits, text) in [
            (1.0, 3, "1.00"),
            (9.996, 3, "10.0"),
            (123.456, 3, "123"),
            (1234.5, 3, "1,230"),
            (-0.012345, 3, "-0.0123"),
            (0.0, 3, "0"),
            (1234567.0, 7, "1,234,567"),
            (1e-12, 2, "1.0e-12"),
            (f64::NAN, 3, "–"),
        ] {
            assert_eq!(number(value, digits), text);
        }
        assert_eq!(integer(1_000), "1,000");
        assert_eq!(integer(999), "999");
    }

    #[test]
    fn units_suit_their_sizes() {
        assert_eq!(bytes(49152), "48 KiB");
        assert_eq!(bytes(25_769_803_776 + 429_496_730), "24.4 GiB");
        assert_eq!(seconds(1.5e-7), "150 ns");
        assert_eq!(seconds(0.0042), "4.20 ms");
        assert_eq!(duration(184.6), "3 min 05 s");
        assert_eq!(duration(3720.0), "1 h 02 min");
        assert_eq!(percent(0.875), "88 %");
        assert_eq!(percent(0.0123), "1.2 %");
        let half = Timed { median: 0.5, low: 0.25, high: 0.75, n: 3 };
        assert_eq!(timed_percent(&half), "50 % [25, 75]");
        assert_eq!(ratio(&half, 2), "0.50× [0.25, 0.75]");
        assert_eq!(interval(-0.5, -0.75, 0.25, 2), "-0.50 [-0.75, 0.25]");
        assert_eq!(with_error(1.5, 0.0123, 3), "1.50 ± 0.012");
        assert_eq!((more_or_less(0.012), more_or_less(-0.25)), ("1.2 % more".to_string(), "25 % less".to_string()));
    }

    #[test]
    fn lists_and_counts_read_as_sentences() {
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(list(&["a"]), "a");
        assert_eq!(count(1, "thread", "threads"), "one thread");
        assert_eq!(count(2000, "row", "rows"), "2,000 rows");
    }
}
