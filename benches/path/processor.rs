//! Processor time: what does not change with who else is on the machine.

use std::time::Duration;

use crate::Result;
use crate::report;
use crate::world::World;

/// Linux counts in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// What was used up to a moment.
#[derive(Clone, Copy)]
pub struct Used {
    postgres: Duration,
    this: Duration,
}

impl Used {
    pub fn now(world: &World) -> Result<Self> {
        let server = world.process_id();
        let mut postgres = used(server)?;
        for entry in std::fs::read_dir("/proc")? {
            let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // It may have ended by now.
            if let Ok(stat) = stat(process)
                && stat[1] == u64::from(server)
            {
                postgres += own(&stat);
            }
        }
        Ok(Self { postgres, this: used(std::process::id())? })
    }

    /// What was used since, for each of `count`.
    pub fn since(self, earlier: Self, count: usize) -> String {
        let each = |now: Duration, before: Duration| report::micros(now.saturating_sub(before) / count.max(1) as u32);
        format!(
            "processor time for each: Postgres {}, service with simulator and load {}",
            each(self.postgres, earlier.postgres),
            each(self.this, earlier.this)
        )
    }
}

/// With that of its children that have ended.
fn used(process: u32) -> Result<Duration> {
    let stat = stat(process)?;
    Ok(own(&stat) + TICK * (stat[13] + stat[14]) as u32)
}

fn own(stat: &[u64]) -> Duration {
    TICK * (stat[11] + stat[12]) as u32
}

/// The numbers behind the name in `/proc/<process>/stat`; what is none counts as 0.
fn stat(process: u32) -> Result<Vec<u64>> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, behind) = text.rsplit_once(')').unwrap_or_default();
    let mut numbers: Vec<u64> = behind.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
    numbers.resize(numbers.len().max(15), 0);
    Ok(numbers)
}
