//! For tests: every call of `llambo:engine`, chosen by the prompt's first word; the rest of the prompt is the text. What it says is
//! for the test to compare.

use std::cell::RefCell;

use llambo_guest::{
    Branch, Engine, Failure, FinishReason, Mask, Options, Outcome, Prompt, Request,
    bindings::llambo::engine::branches::{forget, snapshots},
    emit, export,
};

struct Branches;

thread_local! {
    /// Kept from one request to the next.
    static KEPT: RefCell<Option<Branch>> = const { RefCell::new(None) };
    /// What was written into the diary.
    static PAGES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl Engine for Branches {
    #[expect(clippy::too_many_lines, reason = "one arm for each call")]
    fn handle(request: Request) -> Outcome {
        let Prompt::Text(prompt) = &request.prompt else { return Err(Failure::InvalidRequest("text only".into())) };
        let (word, text) = prompt.split_once(' ').unwrap_or((prompt, ""));
        let options = Options::of(&request)?;
        let open = || Branch::open(&request.model, text);
        match word {
            // three forks, started together; the parent stays as it was
            "fork" => {
                let parent = open()?;
                let mut forks = [parent.fork(), parent.fork(), parent.fork()];
                for fork in &mut forks {
                    fork.generate(&options, None)?;
                }
                for fork in &mut forks {
                    let growth = fork.finish()?;
                    say(&format!("{}+{}={} ", parent.len(), growth.tokens.len(), fork.len()))?;
                    say(&growth.text)?;
                    say(";")?;
                }
            }
            // one step, taken back, and taken again
            "back" => {
                let mut branch = open()?;
                let n = branch.len();
                let one = options.clone().max_tokens(1);
                branch.generate(&one, None)?;
                let first = branch.finish()?.tokens;
                branch.truncate(n)?;
                branch.generate(&one, None)?;
                let again = branch.finish()?.tokens;
                say(&format!("{} {} {}", first == again, branch.len() - n, branch.tokens(n) == again))?;
            }
            // cut while it generates
            "stop" => {
                let mut branch = open()?;
                let n = branch.len();
                branch.generate(&options, None)?;
                let piece = branch.next()?;
                let grown = branch.len() - n;
                branch.truncate(n)?;
                let ended = branch.next()?.is_none();
                say(&format!("{} {} {ended}", piece.is_some_and(|p| p.tokens.len() == grown), branch.len() == n))?;
            }
            "append" => {
                let mut branch = open()?;
                let n = branch.len();
                let added = branch.append("xyz")?;
                branch.append_tokens(&[33])?;
                say(&format!("{added} {} {}", branch.len() - n, branch.text(0)))?;
            }
            "measure" => {
                let branch = open()?;
                let next = branch.distribution(2)?;
                say(&format!("{} {:.3};", next.top.len(), next.entropy))?;
                for scored in branch.score(&["a", "bcd", ""])? {
                    say(&format!("{} {:.3};", scored.tokens.len(), scored.logprobs.iter().fold(0.0, |sum, one| sum + one)))?;
                }
            }
            "measure-tokens" => {
                let branch = open()?;
                for scored in branch.score_tokens(&[&[65, 66][..], &[]])? {
                    say(&format!("{:?} {};", scored.tokens, scored.logprobs.len()))?;
                }
            }
            "logprobs" => {
                let mut branch = open()?;
                branch.generate(&options.logprobs(true), None)?;
                let growth = branch.finish()?;
                say(&format!("{} {:.3}", growth.tokens.len(), growth.logprobs.iter().sum::<f32>()))?;
            }
            "mask" => {
                let mut branch = open()?;
                branch.generate(&options, Some(&Mask::Only(branch.tokens(branch.len() - 1))))?;
                say(&branch.finish()?.text)?;
            }
            "save" => {
                let branch = open()?;
                branch.save("one")?;
                branch.save("two")?;
                say(&snapshots().join(","))?;
                KEPT.with_borrow_mut(|kept| *kept = Some(branch));
            }
            // goes on with what it wrote before, and counts how often it did
            "diary" => {
                let mut branch = match Branch::restore("diary") {
                    Ok(mut branch) => {
                        branch.append(text)?;
                        branch
                    }
                    Err(_) => open()?,
                };
                branch.generate(&options, None)?;
                branch.finish()?;
                branch.save("diary")?;
                let pages = PAGES.with_borrow_mut(|pages| {
                    pages.push(text.to_owned());
                    pages.join("|")
                });
                say(&format!("{pages}: {} {}", branch.len(), branch.text(0)))?;
            }
            "restore" => {
                let kept = KEPT.with_borrow_mut(Option::take).map_or(0, |branch| branch.len());
                let restored = Branch::restore("one")?;
                say(&format!("{} {kept} {} {} {}", restored.text(0), forget("one"), forget("one"), snapshots().join(",")))?;
            }
            "missing" => drop(Branch::restore("nothing")?),
            // more than a guest may: each ends it, or is refused
            "many" => {
                let branch = open()?;
                let mut forks = Vec::new();
                loop {
                    forks.push(branch.fork());
                }
            }
            "names" => {
                let branch = open()?;
                for n in 0.. {
                    branch.save(&n.to_string())?;
                }
            }
            "crowd" => {
                let branch = open()?;
                let mut forks: Vec<Branch> = (0..17).map(|_| branch.fork()).collect();
                for fork in &mut forks {
                    fork.generate(&options, None)?;
                }
            }
            "cut" => drop(open()?.truncate(0)?),
            "foreign" => drop(open()?.append_tokens(&[u32::MAX])?),
            "scores" => drop(open()?.score(&["x"; 65])?),
            "model" => drop(Branch::open("no such model", "x")?),
            other => return Err(Failure::InvalidRequest(format!("there is no test `{other}`"))),
        }
        Ok(FinishReason::Stop)
    }
}

export!(Branches);

fn say(text: &str) -> Result<(), Failure> {
    Ok(emit(text)?)
}
