use super::*;
use crate::{Classifier, Scaling};

fn scaled(section: &str) -> String {
    format!("models: [{{path: 'builtin:demo'}}]\ntypes:\n  tiny:\n    count: 2\n    scaling: {section}\n")
}

fn refused(section: &str) -> String {
    let found = errors(&scaled(section));
    assert_eq!(found.len(), 1, "{section}: {found:#?}");
    found[0].clone()
}

#[test]
fn a_type_without_the_section_is_scaled_by_its_operators() {
    assert_eq!(parse(SMALL).types[0].scaling, None);
}

#[test]
fn what_is_left_out_takes_the_defaults_of_the_shipped_file() {
    let scaling = parse(&scaled("{max: 8}")).types[0].scaling.unwrap();
    assert_eq!((scaling.min, scaling.max), (1, 8));
    // what stands there as a comment is what it is without it
    let (_, shipped) = DEFAULT.split_once("    # scaling:").unwrap();
    let lines = shipped.lines().skip(1).take_while(|line| line.starts_with("    #"));
    let keys = lines.filter_map(|line| line.strip_prefix("    #   ")).filter(|line| !line.starts_with(' '));
    let section = keys.fold(String::new(), |section, line| section + "      " + line + "\n");
    let shipped = parse(&scaled(&format!("\n{section}"))).types[0].scaling.unwrap();
    assert_eq!(shipped, Scaling { max: 1000, up_step: Some(100), down_step: Some(10), ..scaling });
}

#[test]
fn bounds_and_thresholds_that_contradict_each_other_are_refused() {
    assert_eq!(refused("{min: 1}"), "c.yaml:5:5: `types.tiny.scaling.max` is missing; say how many isolates there may be");
    for (section, part) in [
        ("{min: 9, max: 8}", "c.yaml:5:20: `types.tiny.scaling.min` is 9, but the fewest are 9 and the most 8"),
        ("{min: 3, max: 8}", "`types.tiny.count` is 2, but `scaling` keeps it from 3 to 8; begin within that"),
        ("{max: 0}", "must be a whole number from 1 to 200000; raise it"),
        ("{max: 8, scale-up-at: 0.5}", "`types.tiny.scaling.scale-up-at` is 0.5, but `target-load` is 0.7; raise it"),
        ("{max: 8, scale-down-at: 0.9}", "`types.tiny.scaling.scale-down-at` is 0.9, but `target-load` is 0.7; lower it"),
        ("{max: 8, target: 0.9}", "did you mean `target-load`?"),
        ("5", "must be a map with keys such as `min`"),
    ] {
        assert!(refused(section).contains(part), "{section}: {}", refused(section));
    }
    let both = scaled("{max: 8}").replace("count: 2", "count: 2\n    max-count: 4");
    assert!(errors(&both)[0].contains("`types.tiny.max-count` is 4, but the type has `scaling` too"), "{:?}", errors(&both));
}

#[test]
fn a_classifier_is_the_heuristic_or_nobody() {
    assert_eq!(parse(SMALL).balancing.classifier, Classifier::Heuristic);
    assert_eq!(parse(&format!("{SMALL}balancing: {{classifier: off}}")).balancing.classifier, Classifier::Off);
    assert!(error("balancing: {classifier: hard}").contains("must be one of `heuristic`, `off`"));
}
