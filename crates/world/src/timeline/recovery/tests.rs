//! Recovery after openings that failed.

use super::*;
use crate::board::Board;
use fluxmap_testkit::op::Scan;

const HELD: [Held; 3] = [Held { id: 1, expires: 0 }, Held { id: 2, expires: 0 }, Held { id: 3, expires: 0 }];
const LEEWAY: Leeway = Leeway { has_limit: false, keys_go: false, gives_lives: false, now: 0 };

/// Returns the timeline after a life that writes `a`, which is acknowledged, then `b`, and `a` again.
fn one_life() -> Timeline {
    let timeline = Timeline::new(Board::default());
    timeline.opened(0, LEEWAY).expect("the timeline is empty");
    timeline.publish(1, "a", Some(HELD[0]), 0);
    timeline.acknowledge(1);
    timeline.publish(2, "b", Some(HELD[1]), 0);
    timeline.publish(3, "a", Some(HELD[2]), 0);
    timeline.next_life(0)
}

fn recover(timeline: &Timeline, pairs: &[(u64, &str, Option<Held>)]) {
    pairs.iter().for_each(|(timestamp, key, held)| timeline.publish(*timestamp, key, *held, 0));
}

/// Runs `body` in a task, because `publish` asks shuttle for the current task.
fn in_a_task(body: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(body, 1);
}

#[test]
fn an_opening_that_failed_may_have_used_the_number_of_a_lost_commit() {
    in_a_task(|| {
        let opening = one_life();
        // The opening recovers two commits, removes a key that has no room, and fails.
        recover(&opening, &[(1, "a", Some(HELD[0])), (2, "b", Some(HELD[1])), (3, "a", None)]);
        let next = opening.next_life(0);
        recover(&next, &[(3, "b", Some(HELD[1]))]);
        assert_eq!(next.opened(3, LEEWAY), Ok(()));
        assert_eq!(next.state(3), Some(State::from([("b".into(), HELD[1])])));
    });
}

#[test]
fn states_of_different_moments_are_no_state_whatever_an_opening_removed() {
    in_a_task(|| {
        let opening = one_life();
        recover(&opening, &[(1, "a", Some(HELD[0])), (2, "b", None)]);
        let next = opening.next_life(0);
        recover(&next, &[(1, "a", Some(HELD[1]))]);
        assert!(next.opened(3, LEEWAY).is_err());
    });
}

#[test]
fn a_number_that_is_used_again_without_a_reason_is_told() {
    in_a_task(|| {
        let next = one_life();
        recover(&next, &[(3, "b", Some(HELD[1]))]);
        assert!(next.opened(3, LEEWAY).is_err());
    });
}

#[test]
fn a_key_is_removed_only_for_a_reason() {
    in_a_task(|| {
        let timeline = |leeway| {
            let timeline = Timeline::new(Board::default());
            timeline.opened(0, leeway).expect("nothing is there yet");
            timeline.publish(1, "a", Some(Held { id: 1, expires: 10 }), 0);
            timeline
        };
        let is_told = |timeline: Timeline, now| {
            timeline.publish(2, "a", None, now);
            timeline.board.first_anomaly().is_some()
        };
        assert!(is_told(timeline(LEEWAY), 9));
        assert!(!is_told(timeline(LEEWAY), 10));
        assert!(!is_told(timeline(Leeway { keys_go: true, ..LEEWAY }), 9));
        let claimed = timeline(LEEWAY);
        claimed.claim(Scan::all());
        assert!(!is_told(claimed, 9));
        let other = timeline(LEEWAY);
        other.claim(Scan::all());
        other.operates();
        assert!(is_told(other, 9));
    });
}
