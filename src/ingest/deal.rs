//! Deals the partitions of a source to its fetchers, so that each has about the same number of bytes to move.
//!
//! It deliberately has no memory and no clock: the same ranges and the same recent bytes give the same deal on
//! every machine. Results never depend on the deal, only speed does.

use std::collections::HashMap;

use crate::offset::{OffsetRange, TopicPartition};

/// A fetcher must hold this many times its fair share before partitions are dealt anew: one that moves loses
/// what was read ahead of it, so a deal that is a little uneven is better than one that keeps changing.
const TOLERANCE: f64 = 1.25;

/// Deals `ranges` to `lanes` fetchers: element `i` is what fetcher `i` is to be called with.
///
/// `recent_bytes` says for each partition how many bytes it brought in the last batches (weighing a partition
/// that is not named like the mean of the others). Partition `p` goes where its place in the order of topics and
/// partitions puts it; only where that burdens one fetcher clearly more than its share are the heaviest
/// partitions dealt first, each to the fetcher that has least.
///
/// ```
/// use tidemill::ingest::deal;
/// use tidemill::offset::{Offset, OffsetRange, TopicPartition};
/// let range = |partition| OffsetRange::new(TopicPartition::new("t", partition), Offset(0), Offset(10));
/// let lanes = deal(&[range(0), range(1), range(2)], &[], 2);
/// assert_eq!(lanes, [vec![range(0), range(2)], vec![range(1)]]);
/// ```
pub fn deal(
    ranges: &[OffsetRange],
    recent_bytes: &[(TopicPartition, u64)],
    lanes: usize,
) -> Vec<Vec<OffsetRange>> {
    let lanes = lanes.max(1);
    let mut loads = weigh(ranges, recent_bytes);
    loads.sort_by(|a, b| a.range.at.cmp(&b.range.at));
    let in_turn: Vec<usize> = (0..loads.len()).map(|place| place % lanes).collect();
    let owners = if is_even(&loads, &in_turn, lanes) { in_turn } else { heaviest_first(&loads, lanes) };
    let mut dealt = vec![Vec::new(); lanes];
    for (load, owner) in loads.iter().zip(owners) {
        dealt.iter_mut().skip(owner).take(1).for_each(|lane| lane.push(load.range.clone()));
    }
    dealt
}

/// A range and what it is expected to cost.
struct Load<'a> {
    range: &'a OffsetRange,
    bytes: u64,
}

fn weigh<'a>(ranges: &'a [OffsetRange], recent_bytes: &[(TopicPartition, u64)]) -> Vec<Load<'a>> {
    let known: HashMap<&TopicPartition, u64> = recent_bytes.iter().map(|(at, bytes)| (at, *bytes)).collect();
    let total = known.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let mean = total.checked_div(known.len() as u64).unwrap_or(0).max(1);
    let bytes = |at| known.get(at).copied().unwrap_or(mean).max(1);
    ranges.iter().map(|range| Load { range, bytes: bytes(&range.at) }).collect()
}

fn is_even(loads: &[Load<'_>], owners: &[usize], lanes: usize) -> bool {
    let mut sums = vec![0_u64; lanes];
    for (load, owner) in loads.iter().zip(owners) {
        sums.iter_mut().skip(*owner).take(1).for_each(|sum| *sum = sum.saturating_add(load.bytes));
    }
    let fair = sums.iter().sum::<u64>() as f64 / lanes as f64;
    let heaviest_partition = loads.iter().map(|load| load.bytes).max().unwrap_or(0) as f64;
    let heaviest_lane = sums.iter().copied().max().unwrap_or(0) as f64;
    heaviest_lane <= (fair * TOLERANCE).max(heaviest_partition)
}

/// Longest processing time first: at most a third above the best deal there is.
fn heaviest_first(loads: &[Load<'_>], lanes: usize) -> Vec<usize> {
    let mut order: Vec<(usize, u64)> = loads.iter().map(|load| magnitude(load.bytes)).enumerate().collect();
    order.sort_by_key(|(place, bytes)| (std::cmp::Reverse(*bytes), *place));
    let mut sums = vec![0_u64; lanes];
    let mut owners = vec![0; loads.len()];
    for (place, bytes) in order {
        let lightest =
            sums.iter().enumerate().min_by_key(|(lane, sum)| (**sum, *lane)).map_or(0, |(lane, _)| lane);
        sums.iter_mut().skip(lightest).take(1).for_each(|sum| *sum = sum.saturating_add(bytes));
        owners.iter_mut().skip(place).take(1).for_each(|owner| *owner = lightest);
    }
    owners
}

/// `bytes` rounded up to a power of two: small changes from batch to batch must not change the deal.
fn magnitude(bytes: u64) -> u64 {
    bytes.checked_next_power_of_two().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offset::Offset;

    fn ranges(count: i32) -> Vec<OffsetRange> {
        (0..count).map(|p| OffsetRange::new(TopicPartition::new("t", p), Offset(0), Offset(9))).collect()
    }

    fn bytes(of: &[u64]) -> Vec<(TopicPartition, u64)> {
        (0..).zip(of).map(|(p, bytes)| (TopicPartition::new("t", p), *bytes)).collect()
    }

    fn partitions(dealt: &[Vec<OffsetRange>]) -> Vec<Vec<i32>> {
        dealt.iter().map(|lane| lane.iter().map(|range| range.at.partition.0).collect()).collect()
    }

    #[test]
    fn every_range_is_dealt_once_also_to_more_fetchers_than_there_are_ranges() {
        assert_eq!(partitions(&deal(&ranges(2), &[], 4)), [vec![0], vec![1], vec![], vec![]]);
        assert_eq!(partitions(&deal(&ranges(3), &[], 1)), [vec![0, 1, 2]]);
        assert_eq!(deal(&[], &[], 2), [vec![], vec![]]);
    }

    #[test]
    fn one_heavy_partition_gets_a_fetcher_of_its_own() {
        let dealt = deal(&ranges(4), &bytes(&[3_000, 1_000, 1_000, 1_000]), 2);
        assert_eq!(partitions(&dealt), [vec![0], vec![1, 2, 3]]);
    }

    #[test]
    fn small_changes_leave_the_deal_as_it_is() {
        let before = deal(&ranges(4), &bytes(&[1_000, 1_000, 1_000, 1_000]), 2);
        let after = deal(&ranges(4), &bytes(&[1_300, 900, 1_050, 980]), 2);
        assert_eq!(partitions(&before), partitions(&after));
        let skewed = deal(&ranges(4), &bytes(&[3_000, 1_000, 1_000, 1_000]), 2);
        assert_eq!(partitions(&skewed), partitions(&deal(&ranges(4), &bytes(&[3_200, 900, 980, 1_020]), 2)));
    }

    #[test]
    fn the_order_of_the_ranges_does_not_change_the_deal() {
        let mut turned = ranges(5);
        turned.reverse();
        assert_eq!(deal(&ranges(5), &[], 2), deal(&turned, &[], 2));
    }
}
