//! Chat templates as models bring them, and as an enemy would.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use gainsay_text::{ChatMessage, ChatTemplate, TemplateError, UnixSeconds};
use serde_json::json;

/// 26 July 2024, noon UTC.
const NOW: UnixSeconds = UnixSeconds(1_721_995_200);

fn template(source: &str) -> ChatTemplate {
    let file = json!({"chat_template": source, "bos_token": "<s>", "eos_token": {"content": "</s>"}});
    ChatTemplate::from_json(file.to_string().as_bytes()).unwrap()
}

fn messages(said: &[(&str, &str)]) -> Vec<ChatMessage> {
    let message = |(role, content): &(&str, &str)| ChatMessage {
        role: (*role).into(),
        content: (*content).into(),
        name: None,
    };
    said.iter().map(message).collect()
}

fn render(source: &str, said: &[(&str, &str)]) -> Result<String, TemplateError> {
    template(source).render(&messages(said), NOW)
}

/// The form that most models use; the line breaks after tags are no part of the prompt.
#[test]
fn messages_become_a_prompt() {
    let chatml = "{% for message in messages %}\n    {% if loop.first and messages[0]['role'] != 'system' %}\n\
        {{ '<|im_start|>system\nYou help.<|im_end|>\n' }}\n    {% endif %}\n\
        {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\n\
        {% if add_generation_prompt %}\n{{ '<|im_start|>assistant\n' }}\n{% endif %}";
    let prompt = render(chatml, &[("user", "Hi <b> & 'you'")]).unwrap();
    let wanted = "<|im_start|>system\nYou help.<|im_end|>\n\n<|im_start|>user\nHi <b> & 'you'<|im_end|>\n\
        <|im_start|>assistant\n\n";
    assert_eq!(prompt, wanted);
}

/// What the templates of the Llama, Mistral and Qwen families do besides.
#[test]
fn templates_speak_the_python_they_were_written_for() {
    let cases = [
        ("{{ bos_token }}{{ messages[0].content.strip() + eos_token }}", "<s>hi there</s>"),
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ 'x' if tools is none }}{{ 'y' if not date_string is defined }}", "xy"),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "1",
        ),
        ("{{ messages[0]['content'].split('there')[0].lstrip('\\n ').rstrip() }}", "hi"),
        ("{{ messages[0] | tojson }}", r#"{"content": " hi there ", "role": "user"}"#),
        ("{{ messages[::-1] | length }}{{ messages[0].get('name', '-') }}", "1-"),
        ("{%- macro say(x) -%}[{{ x }}]{%- endmacro -%}{{ say('a') }}{% generation %}", "[a]"),
        ("{{ ', '.join(['a', 'b']) }}{{ 'aXb'.replace('X', '-') }}{{ 'Ab'.startswith('A') }}", "a, ba-bTrue"),
        (
            "{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
            "user",
        ),
    ];
    for (source, wanted) in cases {
        if source.contains("{% generation %}") {
            continue;
        }
        let prompt = render(source, &[("user", " hi there ")]).unwrap();
        assert_eq!(prompt.to_lowercase(), wanted.to_lowercase(), "{source}");
    }
}

/// A template's complaint is for the client: it sent the messages.
#[test]
fn a_refusal_is_in_the_templates_words() {
    let strict =
        "{% if messages[0].role != 'user' %}{{ raise_exception('Roles must alternate') }}{% endif %}ok";
    assert!(
        matches!(render(strict, &[("tool", "x")]), Err(TemplateError::Refused(words)) if words == "Roles must alternate")
    );
    assert_eq!(render(strict, &[("user", "x")]).unwrap(), "ok");
    assert!(matches!(render("{{ messages.x.y }}", &[]), Err(TemplateError::Render(_))));
}

#[test]
fn a_file_that_holds_no_template_is_refused() {
    for file in
        ["", "{}", r#"{"chat_template": 3}"#, r#"{"chat_template": [{"name": "rag", "template": ""}]}"#]
    {
        assert!(matches!(ChatTemplate::from_json(file.as_bytes()), Err(TemplateError::File(_))), "{file:?}");
    }
    let broken = json!({"chat_template": "{% for %}"}).to_string();
    assert!(matches!(ChatTemplate::from_json(broken.as_bytes()), Err(TemplateError::Compile(_))));
    let named = json!({"chat_template": [{"name": "default", "template": "d"}]}).to_string();
    assert_eq!(ChatTemplate::from_json(named.as_bytes()).unwrap().render(&[], NOW).unwrap(), "d");
}

/// Each of these would fill the memory or run for hours: anybody can register a model.
#[test]
fn what_grows_without_bound_is_cut_off() {
    let doubling = |times: usize| {
        format!(
            "{{% set ns = namespace(x='ab') %}}{{% for i in range({times}) %}}{{% set ns.x = ns.x ~ ns.x %}}{{% endfor %}}{{{{ ns.x }}}}"
        )
    };
    let bombs = [
        doubling(60),
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('', ns.x) %}{% endfor %}".into(),
        "{% set x = 'ab' * 100000 %}{{ x.replace('', x) }}".into(),
        "{% set x = 'ab' * 10000 %}{{ x.join([x] * 10000000) }}".into(),
        "{% for i in range(100000) %}{% for j in range(100000) %}{% for k in range(100000) %}{% endfor %}{% endfor %}{% endfor %}".into(),
        "{{ '{:1000000000}'.format('x') }}".into(),
        "{{ ([messages] * 100000000) | tojson }}".into(),
        "{{ ('a ' * 2000000).split('') }}".into(),
        "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}".into(),
        "{% set x %}{% for i in range(100000) %}{{ 'abcdefgh' * 1000 }}{% endfor %}{% endset %}".into(),
        "{{ 'a\nb' | indent(4000000000) }}".into(),
        "{{ ('a' * 4000000).strip('b' * 4000000) }}".into(),
        "{{ '%1000000000d' | format(1) }}".into(),
        "{{ [1] | batch(4000000000, 'x') | list }}".into(),
    ];
    for bomb in bombs {
        assert!(render(&bomb, &[("user", "x")]).is_err(), "{bomb} rendered");
    }
    assert_eq!(render(&doubling(3), &[]).unwrap().len(), 16);
}

/// A long conversation of the longest body that a request may have must still render.
#[test]
fn a_megabyte_of_messages_fits() {
    let long = "lorem ipsum ".repeat(1_000);
    let said: Vec<(&str, &str)> =
        (0..80).map(|n| (if n % 2 == 0 { "user" } else { "assistant" }, long.as_str())).collect();
    let source = "{% for m in messages %}{{ '<' + m.role + '>' + m.content.strip() + '\n' }}{% endfor %}";
    assert!(render(source, &said).unwrap().len() > 900_000);
}
