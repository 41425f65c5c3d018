//! What is seen of HTML and plain text.

use super::*;

fn seen(html: &str) -> String {
    Seen::html("", html).text()
}

fn folded(text: &str) -> String {
    Seen::plain("", text).folded().iter().collect()
}

#[test]
fn hidden_text_is_not_seen() {
    for hidden in [
        r#"<div style="display:none">482913</div>"#,
        r#"<div style="DISPLAY : None !important">482913</div>"#,
        r#"<span style="visibility:hidden">482913</span>"#,
        r#"<span style="font-size:0">482913</span>"#,
        r#"<span style="font-size:0px;line-height:0">482913</span>"#,
        r#"<span style="opacity:0">482913</span>"#,
        r#"<span style="opacity: 0.0">482913</span>"#,
        r#"<span hidden>482913</span>"#,
        r#"<span style="mso-hide:all">482913</span>"#,
        r##"<div style="background:#ffffff"><span style="color:#fff">482913</span></div>"##,
        r##"<table bgcolor="white"><tr><td><font color="#FEFEFE">482913</font></td></tr></table>"##,
        r#"<span style="color:transparent">482913</span>"#,
        r#"<span style="position:absolute;left:-9999px">482913</span>"#,
        r#"<div style="max-height:0;overflow:hidden">482913</div>"#,
        r#"<style>.pre{display:none}</style><div class="x pre">482913</div>"#,
        "<script>482913</script>",
        "<!-- 482913 -->",
        "<!--[if mso]>482913<![endif]-->",
        "<title>482913</title>",
        "<style>482913</style>",
        "<template>482913</template>",
        r#"<div style="display:none"><p>a<p>482913</p></div>"#,
        r#"<div style="display:none"><div></div>482913</div>"#,
        r#"<div style="display&#58;none">482913</div>"#,
    ] {
        assert_eq!(
            seen(&format!("before {hidden} after")).split_whitespace().collect::<String>(),
            "beforeafter",
            "{hidden}"
        );
    }
}

#[test]
fn what_looks_hidden_but_is_not_is_seen() {
    for shown in [
        r#"<td style="font-size:0"><div style="font-size:16px">482913</div></td>"#,
        r#"<div style="visibility:hidden"><b style="visibility:visible">482913</b></div>"#,
        r##"<div style="background:#000"><span style="color:#fff">482913</span></div>"##,
        r##"<div style="color:#fff">482913</div>"##,
        r#"<p style="display:none">a<p>482913"#,
        "<div aria-hidden=\"true\">482913</div>",
        "<style>@media print{.code{display:none}}</style><b class=code>482913</b>",
        "<b>4</b><b>8</b><b>2</b><b>9</b><b>1</b><b>3</b>",
        "48<span style=\"display:none\">77</span>2<!-- 5 -->913",
        "4&#56;2&#x39;1&#8203;3",
        "48\u{ad}29\u{200d}13",
    ] {
        assert_eq!(seen(shown).trim(), "482913", "{shown}");
    }
}

#[test]
fn blocks_break_lines_and_cells_stand_apart() {
    assert_eq!(seen("<p>a</p><p>b<br>c</p><tr><td>d</td><td>e</td></tr>"), "a\nb\nc\nd  e");
    assert_eq!(seen("a \n\t b &lt;c&gt; &amp;&nbsp;d"), "a b <c> & d");
}

#[test]
fn digits_of_every_script_fold_to_ascii_and_keep_their_form() {
    for text in [
        "482913",
        "４８２９１３",
        "٤٨٢٩١٣",
        "۴۸۲۹۱۳",
        "४८२९१३",
        "𝟒𝟖𝟐𝟗𝟏𝟑",
        "𝟺𝟾𝟸𝟿𝟷𝟹",
        "4\u{fe0f}\u{20e3}8\u{fe0f}\u{20e3}2\u{fe0f}\u{20e3}9\u{fe0f}\u{20e3}1\u{fe0f}\u{20e3}3\u{fe0f}\u{20e3}",
    ] {
        assert_eq!(folded(text), "482913", "{text}");
    }
    assert_eq!(folded("Código\u{a0}vérifié nai\u{308}ve"), "Codigo verifie naive");
    let seen = Seen::plain("", "a ４８２ b");
    assert_eq!(seen.written(2..5), "４８２");
}

#[test]
fn links_are_kept_with_their_words() {
    let seen = Seen::html(
        "",
        r#"<a href="https://a.example/?x=1&amp;y=2"><b>Sign</b> in</a> <a href="/no" style="display:none">x</a>"#,
    );
    let links: Vec<(&str, String)> =
        seen.links().iter().map(|l| (l.href.as_str(), seen.written(l.range.clone()))).collect();
    assert_eq!(links, [("https://a.example/?x=1&y=2", "Sign in".to_owned())]);
}

#[test]
fn no_more_is_kept_than_the_bound() {
    let seen = Seen::html("", &"a ".repeat(MAX_SEEN));
    assert!(seen.is_cut() && seen.folded().len() <= MAX_SEEN);
}
