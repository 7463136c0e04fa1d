//! Divides a number of records among partitions, to the last one and always alike.
//!
//! It deliberately knows nothing of partitions, offsets or bytes.

/// What one claimant would take, and how much it weighs where not all can have what they want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// At most this.
    pub wants: u64,
    /// Its weight beside the others'.
    pub weight: u64,
}

/// Divides `budget` among `claims` by weight; what one does not want goes to the others. Whoever wants something
/// gets at least 1 while the budget lasts, so that a small backlog never starves behind a large one.
///
/// ```
/// use tidemill::driver::share::{Claim, share};
/// let claims = [Claim { wants: 10, weight: 10 }, Claim { wants: 900, weight: 900 }, Claim { wants: 90, weight: 90 }];
/// assert_eq!(share(100, &claims), [1, 90, 9]);
/// assert_eq!(share(5_000, &claims), [10, 900, 90]);
/// ```
pub fn share(budget: u64, claims: &[Claim]) -> Vec<u64> {
    let mut given = vec![0; claims.len()];
    let mut order: Vec<(usize, &Claim)> =
        claims.iter().enumerate().filter(|(_, claim)| claim.wants > 0).collect();
    // Who wants least for its weight comes first, so that what it leaves is there for the rest: one pass is exact.
    order.sort_by(|(_, a), (_, b)| ratio(a, b).cmp(&ratio(b, a)));
    let mut weight: u128 = order.iter().map(|(_, claim)| u128::from(claim.weight.max(1))).sum();
    let mut left = budget;
    for (index, claim) in order {
        let own = u128::from(claim.weight.max(1));
        let part = u64::try_from(u128::from(left) * own / weight.max(1)).unwrap_or(left);
        let part = part.max(1).min(claim.wants).min(left);
        if let Some(slot) = given.get_mut(index) {
            *slot = part;
        }
        left -= part;
        weight -= own;
    }
    given
}

/// Compares `a.wants / a.weight` with the same of `b` without dividing.
fn ratio(a: &Claim, b: &Claim) -> u128 {
    u128::from(a.wants) * u128::from(b.weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_exactly_the_budget_or_exactly_what_is_wanted_and_never_more() {
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let claim =
                |random: &mut fastrand::Rng| Claim { wants: random.u64(0..50), weight: random.u64(0..60) };
            let claims: Vec<Claim> = (0..random.usize(0..12)).map(|_| claim(&mut random)).collect();
            let budget = random.u64(0..300);
            let given = share(budget, &claims);
            let wanted: u64 = claims.iter().map(|claim| claim.wants).sum();
            assert_eq!(given.iter().sum::<u64>(), budget.min(wanted), "seed {seed}");
            assert!(given.iter().zip(&claims).all(|(given, claim)| *given <= claim.wants), "seed {seed}");
        }
    }

    #[test]
    fn a_small_backlog_gets_its_record_beside_a_huge_one() {
        let claims = [Claim { wants: u64::MAX, weight: u64::MAX }, Claim { wants: 1, weight: 1 }];
        assert_eq!(share(1_000, &claims), [999, 1]);
    }
}
