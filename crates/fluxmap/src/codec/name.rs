//! The names of types, without their modules.

/// [`std::any::type_name`] without paths and lifetimes: `Vec<Thing>`, not
/// `alloc::vec::Vec<my::Thing>`.
/// Moving a type to another module does not change it.
pub(crate) fn type_name<T: ?Sized>() -> String {
    without_paths(std::any::type_name::<T>())
}

/// Copies `full`, and at each `::` removes the path before it.
fn without_paths(full: &str) -> String {
    let mut name = String::with_capacity(full.len());
    // Where the present path began, and the paths around it.
    let mut begin = 0;
    let mut outer = Vec::new();
    let mut previous = ' ';
    let mut characters = full.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                // Skip a lifetime, and the separator after it: compilers differ in which lifetimes they
                // spell out.
                while characters.next_if(|next| next.is_alphanumeric() || *next == '_').is_some() {}
                while characters.next_if(|next| ", ".contains(*next)).is_some() {}
                if name.ends_with('<') && characters.next_if_eq(&'>').is_some() {
                    name.pop();
                    begin = outer.pop().unwrap_or(0);
                }
            }
            ':' if characters.peek() == Some(&':') => {
                characters.next();
                name.truncate(begin);
            }
            '<' => {
                name.push('<');
                outer.push(begin);
                begin = name.len();
            }
            '>' if previous != '-' => {
                name.push('>');
                // The generic type may itself be the start of a path: `function<T>::Thing`.
                begin = outer.pop().unwrap_or(0);
            }
            _ if character.is_alphanumeric() || "_{}#".contains(character) => name.push(character),
            _ => {
                name.push(character);
                begin = name.len();
            }
        }
        previous = character;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    mod one {
        pub(super) struct Thing<T>(T);
        pub(super) mod two {
            pub(in super::super) struct Thing<T>(T);
        }
    }

    #[test]
    fn names_have_no_paths() {
        struct Local;
        fn generic<T>() -> String {
            struct Inner<T>(T);
            type_name::<Inner<T>>()
        }
        let names = [
            (type_name::<u8>(), "u8"),
            (type_name::<&'static str>(), "&str"),
            (type_name::<str>(), "str"),
            (type_name::<Local>(), "Local"),
            (type_name::<Vec<Local>>(), "Vec<Local>"),
            (type_name::<Option<Vec<[String; 4]>>>(), "Option<Vec<[String; 4]>>"),
            (type_name::<(u8, String, Vec<Local>)>(), "(u8, String, Vec<Local>)"),
            (type_name::<[Local]>(), "[Local]"),
            (type_name::<()>(), "()"),
            (type_name::<HashMap<(u8, String), Box<[u8]>>>(), "HashMap<(u8, String), Box<[u8]>>"),
            (type_name::<Box<dyn std::fmt::Debug + Send>>(), "Box<dyn Debug + Send>"),
            (type_name::<dyn Iterator<Item = String>>(), "dyn Iterator<Item = String>"),
            (type_name::<fn(String, &u8) -> Vec<Local>>(), "fn(String, &u8) -> Vec<Local>"),
            (type_name::<*const Local>(), "*const Local"),
            (type_name::<one::Thing<Local>>(), "Thing<Local>"),
            (type_name::<one::Thing<one::two::Thing<u8>>>(), "Thing<Thing<u8>>"),
        ];
        for (name, expected) in names {
            assert_eq!(name, expected);
        }
        assert_eq!(generic::<Local>(), "Inner<Local>");
        assert_eq!(type_name::<one::Thing<u8>>(), type_name::<one::two::Thing<u8>>());
        assert_eq!(without_paths("a::b<c::D>::E<f::G>"), "E<G>");
        assert_eq!(without_paths("for<'a> fn(&'a a::B) -> c::D"), "for fn(&B) -> D");
        assert_eq!(without_paths("a::Cow<'_, [u8]>"), "Cow<[u8]>");
        assert_eq!(without_paths("(a::Lent<'_>, a::b<'static, 'a, T>)"), "(Lent, b<T>)");
        assert_eq!(without_paths("a::b::{{closure}}"), "{{closure}}");
    }
}
