//! Schedules that are written down, since chance seldom brings them about.
//!
//! It deliberately fixes what goes wrong and when, and leaves the rest to the seed: how long each request takes, and who of
//! those that are ready goes on first.

use tidemill::checkpoint::settings::Standby;

use super::disk::Mood;
use super::executor::Moment;
use super::mishap::Mishap;

/// What goes wrong, and when.
pub(crate) type Script = &'static [(Moment, Mishap)];

/// One disk misses a slot, and while the second is away and the first driver sleeps, a second driver seals the others: one
/// of them at the slot that it missed. When the first driver wakes up, the third disk, on which its log is whole and sealed,
/// is away; the first takes what comes after its SEAL, and with the second disk that is enough.
pub(crate) const MISSED: Script = &[
    (300, Mishap::Upset(0, Mood::Down, 60)),
    (340, Mishap::Pause(0, 1_500)),
    (355, Mishap::Upset(1, Mood::Down, 1_400)),
    (380, Mishap::Start(Standby::Depose)),
    (1_800, Mishap::Upset(2, Mood::Down, 1_000)),
];

/// A driver looks at the disks before the job begins, sleeps, and looks on when it has begun and just as one is emptied: of
/// that disk it sees objects and no `job.json`, and of the others what they were before.
pub(crate) const TORN: Script =
    &[(5, Mishap::Pause(0, 1_000)), (400, Mishap::Start(Standby::Depose)), (1_012, Mishap::Empty(0))];

/// All disks but one are away when a driver wakes up that another has deposed, whose collector has removed what it needs.
pub(crate) const DEPOSED: Script = &[
    (300, Mishap::Pause(0, 1_000)),
    (320, Mishap::Start(Standby::Depose)),
    (1_290, Mishap::Upset(1, Mood::Down, 40)),
    (1_295, Mishap::Upset(2, Mood::Down, 400)),
];

/// With these the log has to hold.
pub(crate) const HARD: [Script; 3] = [MISSED, TORN, DEPOSED];
