//! How many isolates a type has while the host runs.

use std::time::Duration;

use super::{DAY, MS};
use crate::{Scaling, decode::Map};

pub(super) const SCALING: &[&str] = &[
    "min", "max", "target-load", "scale-up-at", "scale-down-at", "cool-down-up", "cool-down-down", "step-up", "step-down",
    "window", "idle-to-zero",
];
/// Of isolates.
const MOST: u32 = 200_000;
/// Loads above 1 let requests wait on purpose; a threshold far above is none.
const LOADS: std::ops::RangeInclusive<f64> = 0.01..=100.0;

/// `None` where the type has no such section. `count` is what it begins with, if that could be read.
pub(super) fn scaling(of_type: &Map<'_>, count: Option<u32>) -> Option<Scaling> {
    let map = of_type.get("scaling")?.map(SCALING)?;
    let (min, max) = (map.whole("min", 0..=MOST).unwrap_or(1), map.whole("max", 1..=MOST));
    map.require("max", "say how many isolates there may be");
    let max = max.unwrap_or(MOST);
    if let Some(value) = map.get("min").or_else(|| map.get("max"))
        && min > max
    {
        value.wrong(format!("the fewest are {min} and the most {max}"), "lower `min` or raise `max`");
    }
    if let Some(value) = ["max-count", "min-count"].into_iter().find_map(|key| of_type.get(key)) {
        value.wrong("the type has `scaling` too", "remove it: `scaling.min` and `scaling.max` bound a scaler policy as well");
    }
    if let (Some(value), Some(count)) = (of_type.get("count"), count)
        && min <= max
        && !(min..=max).contains(&count)
    {
        value.wrong(format!("`scaling` keeps it from {min} to {max}"), "begin within that");
    }
    let target_load = map.number("target-load", LOADS).unwrap_or(0.7);
    let up_at = map.number("scale-up-at", LOADS).unwrap_or_else(|| target_load.max(0.85));
    let down_at = map.number("scale-down-at", 0.0..=100.0).unwrap_or_else(|| target_load.min(0.5));
    if let Some(value) = map.get("scale-up-at").filter(|_| up_at < target_load) {
        value.wrong(
            format!("`target-load` is {target_load}"),
            "raise it: above it isolates are added until the target is reached",
        );
    }
    if let Some(value) = map.get("scale-down-at").filter(|_| down_at > target_load) {
        value.wrong(
            format!("`target-load` is {target_load}"),
            "lower it: below it isolates are taken away until the target is reached",
        );
    }
    let seconds = Duration::from_secs;
    let cool_downs = Duration::ZERO..=DAY;
    Some(Scaling {
        min,
        max,
        target_load,
        up_at,
        down_at,
        up_cool_down: map.duration("cool-down-up", cool_downs.clone()).unwrap_or(seconds(5)),
        down_cool_down: map.duration("cool-down-down", cool_downs).unwrap_or(seconds(60)),
        up_step: map.whole("step-up", 1..=MOST),
        down_step: map.whole("step-down", 1..=MOST),
        window: map.duration("window", MS..=DAY).unwrap_or(seconds(10)),
        idle_to_zero: map.duration("idle-to-zero", MS..=DAY).unwrap_or(seconds(300)),
    })
}
