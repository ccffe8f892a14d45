//! Reads the text that the exporter of metrics writes: one sample on each line.

/// One line of the page.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample<'a> {
    pub(crate) name: &'a str,
    /// Names and values, with the values as they are escaped.
    pub(crate) labels: Vec<(&'a str, &'a str)>,
    pub(crate) value: &'a str,
}

/// Every sample in order; lines that are none (comments, empty ones) are passed over.
pub(crate) fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (head, value) = line.rsplit_once(' ')?;
    let Some((name, rest)) = head.split_once('{') else { return Some(Sample { name: head, labels: Vec::new(), value }) };
    let mut rest = rest.strip_suffix('}')?;
    let mut labels = Vec::new();
    while let Some((label, quoted)) = rest.split_once("=\"") {
        let end = end_of(quoted)?;
        labels.push((label, &quoted[..end]));
        rest = quoted[end + 1..].trim_start_matches(',');
    }
    Some(Sample { name, labels, value })
}

/// Where the first quote stands that is not escaped.
fn end_of(quoted: &str) -> Option<usize> {
    let mut is_escaped = false;
    quoted.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

impl<'a> Sample<'a> {
    pub(crate) fn label(&self, name: &str) -> Option<&'a str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_quotes_and_braces_is_one_value() {
        let page = "# HELP a b\na_total{model=\"x \\\"y\\\\\",le=\"{0,1}\"} 3\n\nplain 1.5e-7\n";
        let read: Vec<_> = samples(page).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].name, read[0].value), ("a_total", "3"));
        assert_eq!((read[0].label("model"), read[0].label("le")), (Some("x \\\"y\\\\"), Some("{0,1}")));
        assert_eq!(read[1], Sample { name: "plain", labels: vec![], value: "1.5e-7" });
    }
}
