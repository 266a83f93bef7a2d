//! A weighted random choice in constant time (Walker's alias method, in integers and therefore exact).

use fastrand::Rng;

/// Items to draw from in proportion to their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted<T> {
    items: Box<[T]>,
    total: u64,
    /// One column per item; `None` when all weights are equal and any item is as good as any other.
    columns: Option<Box<[Column]>>,
}

/// A column of the table: a draw below `threshold` (of `total`) is the column's own item, any other is
/// the alias'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    threshold: u64,
    alias: usize,
}

// === impl Weighted ===

impl<T> Weighted<T> {
    /// Prepares a choice. Items of weight 0 are left out.
    pub fn new(items: impl IntoIterator<Item = (T, u32)>) -> Self {
        let drawn = items.into_iter().filter(|(_, weight)| *weight > 0);
        let (items, weights): (Vec<T>, Vec<u64>) = drawn
            .map(|(item, weight)| (item, u64::from(weight)))
            .unzip();
        let equal = weights.windows(2).all(|pair| pair.first() == pair.last());
        let total = weights.iter().sum();
        Self {
            items: items.into(),
            total,
            columns: (!equal).then(|| columns(&weights, total)),
        }
    }

    /// Draws an item; `None` if there is none.
    pub fn choose(&self, rng: &mut Rng) -> Option<&T> {
        if self.items.is_empty() {
            return None;
        }
        let own = rng.usize(..self.items.len());
        let aliased = self
            .columns
            .as_ref()
            .and_then(|columns| columns.get(own))
            .filter(|column| rng.u64(..self.total) >= column.threshold);
        self.items.get(aliased.map_or(own, |column| column.alias))
    }

    /// The sum of all weights.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// Fills `n` columns of height `total` with `n` items of height `n * weight`: what a light item leaves
/// free in its column, a heavy one takes.
///
/// `n * weight` cannot overflow: both factors are below 2^32, as more items would not fit in memory.
fn columns(weights: &[u64], total: u64) -> Box<[Column]> {
    let count = weights.len() as u64;
    let mut light = Vec::new();
    let mut heavy = Vec::new();
    for (index, weight) in weights.iter().enumerate() {
        let height = weight.saturating_mul(count);
        if height < total {
            light.push((index, height));
        } else {
            heavy.push((index, height));
        }
    }
    let full = |index| Column {
        threshold: total,
        alias: index,
    };
    let mut columns: Box<[Column]> = (0..weights.len()).map(full).collect();
    while let Some((index, height)) = light.pop() {
        // The heights sum to `n * total`, so whenever one is below, another is above.
        let Some((donor, available)) = heavy.pop() else {
            break;
        };
        if let Some(column) = columns.get_mut(index) {
            *column = Column {
                threshold: height,
                alias: donor,
            };
        }
        let left = available - (total - height);
        if left < total {
            light.push((donor, left));
        } else {
            heavy.push((donor, left));
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::*;

    use super::*;

    /// How much of the table leads to each item, out of `n * total`.
    fn shares(choice: &Weighted<usize>, count: usize) -> Vec<u64> {
        let mut shares = vec![0; count];
        for (own, item) in choice.items.iter().enumerate() {
            let column = choice.columns.as_ref().map(|columns| columns[own]);
            let threshold = column.map_or(choice.total, |column| column.threshold);
            shares[*item] += threshold;
            if let Some(column) = column {
                shares[choice.items[column.alias]] += choice.total - threshold;
            }
        }
        shares
    }

    proptest! {
        #[test]
        fn shares_are_exactly_the_weights(weights in prop::collection::vec(prop_oneof![0..4_u32, any::<u32>()], 0..40)) {
            let choice = Weighted::new(weights.iter().copied().enumerate());
            let drawn = weights.iter().filter(|w| **w > 0).count() as u64;
            let expected: Vec<u64> = weights.iter().map(|w| u64::from(*w) * drawn).collect();
            prop_assert_eq!(shares(&choice, weights.len()), expected);
        }

        #[test]
        fn weightless_item_is_never_drawn(weights in prop::collection::vec(0..3_u32, 0..8), seed in any::<u64>()) {
            let choice = Weighted::new(weights.iter().copied().enumerate());
            let mut rng = Rng::with_seed(seed);
            for _ in 0..50 {
                match choice.choose(&mut rng) {
                    Some(item) => prop_assert!(weights[*item] > 0),
                    None => prop_assert!(weights.iter().all(|w| *w == 0)),
                }
            }
        }
    }

    #[test]
    fn draws_follow_the_shares() {
        let choice = Weighted::new([("light", 1), ("heavy", 3)]);
        let mut rng = Rng::with_seed(7);
        let heavy = (0..4000)
            .filter(|_| choice.choose(&mut rng) == Some(&"heavy"))
            .count();
        assert!(
            (2850..3150).contains(&heavy),
            "{heavy} of 4000, expected 3000"
        );
    }
}
