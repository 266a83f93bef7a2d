//! Quantities in the form in which an API server gives them back: `2048Mi` is stored as `2Gi`, `0.5` as
//! `500m`. Who compares what is wanted with what lives has to want the stored form.

/// Digits of a quantity that is read. More are no quantity of anything, and are left as they are.
const DIGITS: usize = 18;

/// One, in the smallest unit that a quantity can have.
const ONE: i128 = 1_000_000_000;

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// How a quantity was written, which its stored form follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// The stored form of `text`; `None` if it is no quantity, which the API server will say.
///
/// The rules are those of `resource.Quantity` in Kubernetes' API machinery: no fraction, no factor that a
/// suffix could express, the kind of suffix that was written, and decimal where binary would be inexact.
pub fn canonical(text: &str) -> Option<String> {
    let (nanos, format) = parse(text.trim())?;
    let whole = (nanos % ONE == 0).then_some(nanos / ONE);
    match (format, whole) {
        (Format::Binary, Some(whole)) if whole.abs() >= 1024 => binary(whole),
        (Format::Exponent, _) => decimal(nanos, exponent_suffix),
        _ => decimal(nanos, decimal_suffix),
    }
}

/// The value in billionths, rounded away from zero as the API server does.
fn parse(text: &str) -> Option<(i128, Format)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = unsigned.split_at(end.unwrap_or(unsigned.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = whole.len() + fraction.len();
    if digits == 0 || digits > DIGITS || fraction.contains('.') {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (scaled, format) = scale(mantissa.checked_mul(ONE)?, suffix)?;
    let divisor = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let nanos = ceiling(scaled.0, scaled.1.checked_mul(divisor)?);
    let negative = text.starts_with('-');
    Some((if negative { -nanos } else { nanos }, format))
}

/// `nanos` in the unit of `suffix`, as a numerator and a denominator.
fn scale(nanos: i128, suffix: &str) -> Option<((i128, i128), Format)> {
    let by_ten = |exponent: i32| {
        let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
        if exponent < 0 {
            Some((nanos, power))
        } else {
            Some((nanos.checked_mul(power)?, 1))
        }
    };
    if let Some(&(_, exponent)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return Some((by_ten(exponent)?, Format::Decimal));
    }
    if let Some(place) = BINARY.iter().position(|known| *known == suffix) {
        let unit = 1024_i128.pow(u32::try_from(place).ok()? + 1);
        return Some(((nanos.checked_mul(unit)?, 1), Format::Binary));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let exponent = Some(exponent).filter(|exponent| (-18..=18).contains(exponent))?;
    Some((by_ten(exponent)?, Format::Exponent))
}

fn ceiling(numerator: i128, denominator: i128) -> i128 {
    let quotient = numerator / denominator;
    quotient + i128::from(numerator % denominator != 0)
}

fn binary(mut amount: i128) -> Option<String> {
    let mut places = 0;
    while amount % 1024 == 0 && places < BINARY.len() {
        amount /= 1024;
        places += 1;
    }
    let suffix = match places {
        0 => "",
        places => BINARY.get(places - 1)?,
    };
    Some(format!("{amount}{suffix}"))
}

fn decimal(nanos: i128, suffix: fn(i32) -> Option<String>) -> Option<String> {
    let (mut amount, mut exponent) = (nanos, -9);
    if amount == 0 {
        return Some("0".to_owned());
    }
    while amount % 1000 == 0 {
        amount /= 1000;
        exponent += 3;
    }
    Some(format!("{amount}{}", suffix(exponent)?))
}

fn decimal_suffix(exponent: i32) -> Option<String> {
    let known = DECIMAL.iter().find(|(_, known)| *known == exponent);
    known.map(|(suffix, _)| (*suffix).to_owned())
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "one of two forms, the other of which can fail"
)]
fn exponent_suffix(exponent: i32) -> Option<String> {
    Some(match exponent {
        0 => String::new(),
        exponent => format!("e{exponent}"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quantity_has_the_form_in_which_it_is_stored() {
        let table = [
            ("2048Mi", "2Gi"),
            ("2Gi", "2Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000Ki", "1000Ki"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("0Mi", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("100m", "100m"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("5000", "5k"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("0.1n", "1n"),
            ("-1000m", "-1"),
            (".5", "500m"),
            ("5.", "5"),
        ];
        for (written, stored) in table {
            assert_eq!(canonical(written).as_deref(), Some(stored), "{written}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_left_alone() {
        for text in [
            "",
            ".",
            "Mi",
            "1mi",
            "1 Gi",
            "1.2.3",
            "x",
            "1e",
            "1e99",
            "1234567890123456789",
        ] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_stored_form_is_its_own_and_means_the_same(
            number in 0_u32..5_000_000,
            suffix in prop::sample::select(vec!["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3"]),
        ) {
            let text = format!("{number}{suffix}");
            let stored = canonical(&text).unwrap();
            prop_assert_eq!(canonical(&stored), Some(stored.clone()));
            prop_assert_eq!(parse(&text).unwrap().0, parse(&stored).unwrap().0);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+.0-9eEmkMGTPKinu]{0,24}") {
            let _read = canonical(&text);
        }
    }
}
