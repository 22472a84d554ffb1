//! The log-probabilities of an event's tokens, as completions and as chat write them. Only canaries
//! ask for them.

use std::borrow::Cow;

use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use crate::load::record::Score;
use crate::load::take::{Key, Take};

/// `logprobs` of a choice.
#[derive(Debug, Default)]
pub(super) struct Logprobs {
    /// Completions: the tokens, their log-probabilities, and the likeliest ones at each place.
    tokens: Vec<String>,
    numbers: Vec<Option<f64>>,
    tops: Vec<Vec<Named>>,
    /// Chat: one object a token.
    content: Vec<Content>,
}

/// A token and its log-probability.
#[derive(Clone, Debug, Default, PartialEq)]
struct Named {
    token: String,
    logprob: Option<f64>,
}

#[derive(Debug, Default)]
struct Content {
    own: Named,
    top: Vec<Named>,
}

impl Logprobs {
    /// The tokens in order; one without a number has none.
    pub(super) fn into_scores(self) -> impl Iterator<Item = Score> {
        let mut top = self.tops.into_iter();
        let tokens = self.tokens.into_iter().zip(self.numbers);
        let completions = tokens
            .map(move |(token, logprob)| score(token, logprob, &top.next().unwrap_or_default()));
        let content = self.content.into_iter();
        let chat = content.map(|part| score(part.own.token, part.own.logprob, &part.top));
        completions.chain(chat).flatten()
    }
}

fn score(token: String, logprob: Option<f64>, top: &[Named]) -> Option<Score> {
    let logprob = logprob?;
    let others = top.iter().filter(|other| other.token != token);
    let mut others: Vec<_> = others
        .filter_map(|other| Some((other.token.clone(), other.logprob?)))
        .collect();
    others.sort_by(|a, b| b.1.total_cmp(&a.1));
    Some(Score {
        token,
        logprob,
        others,
    })
}

impl<'de> Take<'de> for Logprobs {
    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            match key.as_ref() {
                "tokens" => Items(&mut self.tokens).take_value(&mut map)?,
                "token_logprobs" => Items(&mut self.numbers).take_value(&mut map)?,
                "top_logprobs" => Items(&mut self.tops).take_value(&mut map)?,
                "content" => Items(&mut self.content).take_value(&mut map)?,
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

/// A list, an item for each of the array.
struct Items<'t, T>(&'t mut Vec<T>);

impl<'de, T> Take<'de> for Items<'_, T>
where
    T: Default,
    for<'t> Place<'t, T>: Take<'de>,
{
    fn array<A: SeqAccess<'de>>(&mut self, mut items: A) -> Result<(), A::Error> {
        loop {
            let mut item = T::default();
            if !Place(&mut item).take_item(&mut items)? {
                return Ok(());
            }
            self.0.push(item);
        }
    }
}

/// A place of one item.
struct Place<'t, T>(&'t mut T);

impl<'de> Take<'de> for Place<'_, String> {
    fn text(&mut self, text: Cow<'de, str>) {
        *self.0 = text.into_owned();
    }
}

impl Take<'_> for Place<'_, Option<f64>> {
    fn number(&mut self, number: f64) {
        *self.0 = Some(number).filter(|number| number.is_finite());
    }
}

/// Completions: an object of log-probabilities by token.
impl<'de> Take<'de> for Place<'_, Vec<Named>> {
    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let mut named = Named {
                token: key.into_owned(),
                logprob: None,
            };
            Place(&mut named.logprob).take_value(&mut map)?;
            self.0.push(named);
        }
        Ok(())
    }
}

/// Chat: an object that names its token.
impl<'de> Take<'de> for Place<'_, Named> {
    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            if !self.0.member(&key, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> Take<'de> for Place<'_, Content> {
    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            if key == "top_logprobs" {
                Items(&mut self.0.top).take_value(&mut map)?;
            } else if !self.0.own.member(&key, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl Named {
    /// Takes a member that it knows; returns whether it does.
    fn member<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "token" => Place(&mut self.token).take_value(map)?,
            "logprob" => Place(&mut self.logprob).take_value(map)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use crate::load::event::Event;
    use crate::load::record::Score;

    fn scores(choice: &str) -> Vec<Score> {
        let text = format!(r#"{{"choices":[{{{choice}}}]}}"#);
        let event = Event::read(text.as_bytes()).unwrap().unwrap();
        event.choice.unwrap().into_scores().collect()
    }

    fn score(token: &str, logprob: f64, others: &[(&str, f64)]) -> Score {
        let named = |&(token, logprob): &(&str, f64)| (token.to_owned(), logprob);
        Score {
            token: token.to_owned(),
            logprob,
            others: others.iter().map(named).collect(),
        }
    }

    #[test]
    fn both_apis_give_each_token_its_number_and_the_likeliest_others() {
        let completions = r#""text":" a b","logprobs":{"text_offset":[0,2],"token_logprobs":[-0.5,-1],
            "tokens":["token_id:5","token_id:6"],
            "top_logprobs":[{"token_id:5":-0.5,"token_id:9":-1.5},{"token_id:8":-3,"token_id:7":-0.75,"token_id:6":-1}]}"#;
        let chat = r#""delta":{"content":"a b"},"logprobs":{"content":[
            {"token":"token_id:5","logprob":-0.5,"bytes":[97],"top_logprobs":[
                {"token":"token_id:5","logprob":-0.5,"bytes":null},{"token":"token_id:9","logprob":-1.5}]},
            {"logprob":-1,"token":"token_id:6","top_logprobs":[
                {"token":"token_id:8","logprob":-3},{"token":"token_id:7","logprob":-0.75}]}]}"#;
        let expected = [
            score("token_id:5", -0.5, &[("token_id:9", -1.5)]),
            score(
                "token_id:6",
                -1.0,
                &[("token_id:7", -0.75), ("token_id:8", -3.0)],
            ),
        ];
        assert_eq!(scores(completions), expected);
        assert_eq!(scores(chat), expected);
    }

    #[test]
    fn what_has_no_number_has_no_score() {
        for (choice, expected) in [
            (r#""text":"a","logprobs":null"#, vec![]),
            (r#""text":"a","logprobs":{}"#, vec![]),
            (r#""text":"a","logprobs":[1,"x"]"#, vec![]),
            (r#""logprobs":{"content":null}"#, vec![]),
            (
                r#""logprobs":{"tokens":["a"],"token_logprobs":[null],"top_logprobs":[null]}"#,
                vec![],
            ),
            (
                r#""logprobs":{"tokens":["a","b"],"token_logprobs":[null,-2],"top_logprobs":null}"#,
                vec![score("b", -2.0, &[])],
            ),
        ] {
            assert_eq!(scores(choice), expected, "{choice}");
        }
    }
}
