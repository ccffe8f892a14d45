//! Which core computes what. Threads that compute one step together wait for each other in a loop, many times in a step: two of them on one core
//! take turns of milliseconds to wait for each other, and a step that takes one takes a thousand times as long. The system puts them there whenever
//! others keep the other cores busy, and finds that fair. So where every core has a thread that computes, each stays on its own, and
//! everybody else moves around them.

#[cfg(target_os = "linux")]
mod linux {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// The cores that this thread may use.
    pub(crate) struct Cores(CpuSet);

    impl Cores {
        pub(crate) fn allowed() -> Option<Self> {
            sched_getaffinity(None).ok().map(Self)
        }

        /// Their numbers, in order, if so many threads are one for each of them.
        pub(crate) fn one_each(&self, n_threads: i32) -> Option<Vec<usize>> {
            let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| self.0.is_set(*cpu)).collect();
            (all.len() > 1 && i32::try_from(all.len()) == Ok(n_threads)).then_some(all)
        }

        /// This thread may use them again.
        pub(crate) fn give_back(&self) {
            // one that may not say so stays where it is
            let _ = sched_setaffinity(None, &self.0);
        }
    }

    /// This thread stays where ggml has the one that asks for a step: on the last, while the others have the first ones.
    pub(crate) fn stay_on_the_last(n_threads: i32) {
        let last = Cores::allowed().and_then(|cores| cores.one_each(n_threads)?.last().copied());
        if let Some(last) = last {
            let mut only = CpuSet::new();
            only.set(last);
            let _ = sched_setaffinity(None, &only);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    /// Systems that place threads as they like.
    pub(crate) struct Cores;

    impl Cores {
        pub(crate) fn allowed() -> Option<Self> {
            None
        }

        pub(crate) fn one_each(&self, _: i32) -> Option<Vec<usize>> {
            None
        }

        pub(crate) fn give_back(&self) {}
    }

    pub(crate) fn stay_on_the_last(_: i32) {}
}

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{Cores, stay_on_the_last};
#[cfg(target_os = "linux")]
pub(crate) use linux::{Cores, stay_on_the_last};

/// More threads than this are not quicker at choosing 256 tokens.
const MOST_CHOOSERS: usize = 8;

/// This thread and others for choosing tokens: as many as compute, since these sleep meanwhile.
pub(crate) fn choosers(n_threads: i32) -> Option<rayon::ThreadPool> {
    let n = usize::try_from(n_threads).ok().filter(|n| *n > 1)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n.min(MOST_CHOOSERS)).thread_name(|i| format!("llambo-choose-{i}"));
    let pool = pool.use_current_thread();
    // without them it is slower, and nothing else
    pool.build().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_as_many_threads_as_cores_have_one_each() {
        let cores = Cores::allowed().unwrap();
        let n = (1..4096).find(|n| cores.one_each(*n).is_some());
        // a machine of one core has no such number
        let Some(n) = n else { return };
        let all = cores.one_each(n).unwrap();
        assert_eq!(all.len(), usize::try_from(n).unwrap());
        assert!(cores.one_each(n - 1).is_none() && cores.one_each(n + 1).is_none());
        std::thread::spawn(move || {
            stay_on_the_last(n);
            // from there, one core is all there is
            assert!(Cores::allowed().unwrap().one_each(n).is_none());
            cores.give_back();
            assert_eq!(Cores::allowed().unwrap().one_each(n), Some(all));
        })
        .join()
        .unwrap();
    }
}
