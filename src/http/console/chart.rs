//! Small charts, drawn as SVG on the server. Colours are classes of the style sheet, so that light and dark both fit.

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

/// In units of the drawing.
const WIDTH: i64 = 600;
const HEIGHT: i64 = 120;

/// Some equal spans of time that end now.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub buckets: usize,
}

impl Span {
    /// Which of them `at` lies in; `None` outside.
    pub fn bucket(&self, at: DateTime<Utc>) -> Option<usize> {
        let whole = (self.to - self.from).num_milliseconds().max(1);
        let part = (at - self.from).num_milliseconds();
        if part < 0 || part > whole {
            return None;
        }
        let buckets = i64::try_from(self.buckets).ok()?;
        usize::try_from((part * buckets / whole).min(buckets - 1)).ok()
    }

    pub fn length(&self) -> TimeDelta {
        self.to - self.from
    }
}

/// Parts of a bar, each with its class, from below.
pub type Bar = Vec<(&'static str, i64)>;

/// Bars beside each other. `said`: what they show, for who does not see them.
pub fn bars(said: &str, bars: &[Bar]) -> Markup {
    let sum = |bar: &Bar| bar.iter().map(|(_, value)| value).sum::<i64>();
    let highest = bars.iter().map(sum).max().unwrap_or(0).max(1);
    let count = i64::try_from(bars.len()).unwrap_or(1).max(1);
    let width = WIDTH / count;
    html! {
        svg.chart role="img" aria-label=(said) viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" {
            title { (said) }
            @for line in 1..4 {
                line.grid x1="0" x2=(WIDTH) y1=(HEIGHT * line / 4) y2=(HEIGHT * line / 4) {}
            }
            @for (n, bar) in (0_i64..).zip(bars) {
                @for (class, y, height) in stacked(bar, highest) {
                    rect class=(class) x=(n * width + 1) y=(y) width=((width - 2).max(1)) height=(height) {}
                }
            }
        }
    }
}

/// Class, top and height of each part that is not empty.
fn stacked(bar: &Bar, highest: i64) -> Vec<(&'static str, i64, i64)> {
    let mut below = 0;
    let mut parts = Vec::new();
    for (class, value) in bar.iter().filter(|(_, value)| *value > 0) {
        let bottom = HEIGHT - HEIGHT * below / highest;
        below += value;
        // What is there is seen, however little.
        let height = (bottom - (HEIGHT - HEIGHT * below / highest)).max(2);
        parts.push((*class, (bottom - height).max(0), height));
    }
    parts
}

/// How much of something is used, from 0 to 100. `said`: for who does not see it.
pub fn meter(said: &str, class: &str, percent: i64) -> Markup {
    let percent = percent.clamp(0, 100);
    html! {
        svg class={ "meter " (class) } role="img" aria-label=(said) viewBox="0 0 100 8" preserveAspectRatio="none" {
            title { (said) }
            rect.track x="0" y="0" width="100" height="8" {}
            rect.used x="0" y="0" width=(percent) height="8" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_bucket() {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let span = Span { from: at(0), to: at(60), buckets: 6 };
        let found: Vec<_> = [-1, 0, 9, 10, 59, 60, 61].into_iter().map(|second| span.bucket(at(second))).collect();
        assert_eq!(found, [None, Some(0), Some(0), Some(1), Some(5), Some(5), None]);
    }

    #[test]
    fn parts_stand_on_each_other_and_fill_the_highest_bar() {
        assert_eq!(stacked(&vec![("a", 3), ("b", 0), ("c", 1)], 4), [("a", 30, 90), ("c", 0, 30)]);
        assert_eq!(stacked(&vec![("a", 1)], 1000), [("a", 118, 2)], "what is little is still seen");
    }
}
