use super::*;

// Each scheme with each kind of port.
#[test]
fn a_server_is_called_by_its_host_and_by_its_port_unless_that_is_the_scheme_s_own() {
    for (url, authority, port, is_tls, target) in [
        ("http://a", "a", 80, false, "/"),
        ("http://a:80/b", "a", 80, false, "/b"),
        ("http://a:443/b?c=d", "a:443", 443, false, "/b?c=d"),
        ("http://a:8080", "a:8080", 8_080, false, "/"),
        ("https://a", "a", 443, true, "/"),
        ("https://a:443/b", "a", 443, true, "/b"),
        ("https://a:80/b", "a:80", 80, true, "/b"),
        ("https://[::1]:8443/", "[::1]:8443", 8_443, true, "/"),
    ] {
        let (address, path) = Address::of(url).unwrap();
        let scheme = if is_tls { "https" } else { "http" };
        let said = (address.authority(), address.port, address.is_tls, path.as_str());
        assert_eq!(said, (authority.to_owned(), port, is_tls, target), "{url}");
        assert_eq!(address.origin(), format!("{scheme}://{authority}"), "{url}");
    }
}

#[test]
fn a_loopback_address_and_its_name_are_this_machine_and_nothing_else_is() {
    for (host, is_local) in [
        ("127.0.0.1", true),
        ("127.9.9.9", true),
        ("[::1]", true),
        ("localhost", true),
        ("10.0.0.1", false),
        ("[::2]", false),
        ("localhost.example", false),
    ] {
        let (address, _) = Address::of(&format!("http://{host}:1/")).unwrap();
        assert_eq!(address.is_local(), is_local, "{host}");
    }
}
