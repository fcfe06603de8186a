//! Figures: what the rounds came to, as text for people and as JSON.

use serde_json::{Map, Value};

/// Named figures, each with a value of every round.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<(String, Vec<f64>)>);

/// A median with its range.
#[derive(Debug, Clone, Copy)]
struct Median {
    middle: f64,
    least: f64,
    most: f64,
}

impl Figures {
    /// One more round's value.
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name.into(), vec![value])),
        }
    }

    /// A figure that could not be measured: null.
    pub(crate) fn absent(&mut self, name: &str) {
        if self.0.iter().all(|(known, _)| known != name) {
            self.0.push((name.into(), Vec::new()));
        }
    }

    /// One figure by another's, round by round.
    pub(crate) fn add_ratio(&mut self, name: &str, over: &Self, under: &Self, figure: &str) {
        for (over, under) in over.values(figure).iter().zip(under.values(figure)) {
            self.add(name, over / under);
        }
    }

    fn values(&self, name: &str) -> &[f64] {
        self.0.iter().find(|(known, _)| known == name).map_or(&[], |(_, values)| values)
    }

    /// A line for each figure, indented.
    pub(crate) fn text(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let line = |(name, values): &(String, Vec<f64>)| match Median::of(values) {
            Some(Median { middle, least, most }) if values.len() > 1 => {
                format!("  {name:<width$}  {} ({}–{})\n", number(middle), number(least), number(most))
            }
            Some(Median { middle, .. }) => format!("  {name:<width$}  {}\n", number(middle)),
            None => format!("  {name:<width$}  not offered, or not held\n"),
        };
        self.0.iter().map(line).collect()
    }

    /// The median of each under its name, with `_min` and `_max` where there were several rounds.
    pub(crate) fn json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        for (name, values) in &self.0 {
            let median = Median::of(values);
            map.insert(name.clone(), median.map_or(Value::Null, |median| rounded(median.middle)));
            if let (Some(median), true) = (median, values.len() > 1) {
                map.insert(format!("{name}_min"), rounded(median.least));
                map.insert(format!("{name}_max"), rounded(median.most));
            }
        }
        map
    }
}

impl Median {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { middle: f64::midpoint(low, high), least, most })
    }
}

fn rounded(value: f64) -> Value {
    let scale = if value.abs() >= 100.0 { 1.0 } else { 1_000.0 };
    Value::from((value * scale).round() / scale)
}

fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_have_ranges() {
        let mut figures = Figures::default();
        for value in [3_000.0, 1_000.0, 2_500.0] {
            figures.add("rate", value);
        }
        figures.add("cpu", 1.23456);
        figures.absent("memory");
        assert_eq!(
            figures.text(),
            "  rate    2,500 (1,000–3,000)\n  cpu     1.23\n  memory  not offered, or not held\n"
        );
        let json = Value::from(figures.json()).to_string();
        assert_eq!(json, r#"{"rate":2500.0,"rate_min":1000.0,"rate_max":3000.0,"cpu":1.235,"memory":null}"#);
    }
}
