//! Names of headers and cookies: who asks, and what says nothing of it.
//!
//! The lists are sorted, so that they can be searched. A change of one raises the version of fingerprints, because the
//! same request would have another fingerprint: a test reminds of it.

/// The headers that say who asks: credentials, and what gateways and proxies make of them. Unless a
/// [`scope`](crate::IdempotencyLayer::scope) says whose a key is, a request that differs from the recorded one in one
/// of them is another client's. [`credential_headers`](crate::IdempotencyLayer::credential_headers) adds to them.
///
/// The names are in lower case. `*`, at the beginning or the end of a name, matches any characters. The names in
/// [`EXEMPT_HEADERS`] are excepted.
///
/// Values are compared byte by byte, except that the name of an authentication scheme (such as `Bearer`) in a header
/// whose name ends in `authorization` is compared without case, and that not all cookies count: see
/// [`IGNORED_COOKIES`].
pub const CREDENTIAL_HEADERS: &[&str] = &[
    "*-access-key", "*-api-key", "*-apikey", "*-app-key", "*-assertion", "*-auth", "*-authorization", "*-client-cert",
    "*-clientcert", "*-credential", "*-jwt", "*-password", "*-principal", "*-secret", "*-secret-key", "*-session",
    "*-session-id", "*-subscription-key", "*-token", "*-user", "*-user-email", "*-user-id", "*-user-info",
    "*-user-key", "*-user-name", "*-userid", "*-userinfo", "*-username", "access_token", "api-key", "api_key",
    "api_token", "apikey", "app_id", "app_key", "auth", "auth-key", "auth_token", "authentication", "authorization",
    "cb-access-passphrase", "cf-access-*", "cf-cert-*", "cf-client-cert-*", "client-cert", "client-cert-chain",
    "client-id", "client-to-edge", "client_id", "client_secret", "cloudfront-viewer-cert-*", "cookie",
    "dd-application-key", "eppn", "idcs_remote_user", "idcs_user_*", "impersonate-*", "iv-creds", "iv-groups",
    "iv-user-l", "iv_user", "jwt", "l5d-client-id", "oam_remote_user", "oidc-claim-*", "oidc_access_token",
    "oidc_claim_*", "oidc_id_token", "on-behalf-of", "osso-*", "persistent-id", "proxy-authorization", "remote-email",
    "remote-groups", "remote-name", "remote-user", "remote_user", "session", "session-id", "session_id", "sessionid",
    "sm_serversessionid", "sm_universalid", "sm_user", "sm_userdn", "ssl-client-*", "ssl_client_*", "sudo",
    "tailscale-user-*", "tenant-id", "token", "user", "user-id", "user_id", "user_key", "userid", "username",
    "x-account-id", "x-act-as", "x-algolia-application-id", "x-amzn-ava-user-context", "x-amzn-lattice-identity",
    "x-amzn-mtls-clientcert-*", "x-amzn-oidc-*", "x-anonymous-consumer", "x-api-client", "x-api-id", "x-api-key",
    "x-app-id", "x-appengine-user-*", "x-application-id", "x-application-key", "x-appwrite-key", "x-auth-email",
    "x-auth-groups", "x-auth-key", "x-auth-name", "x-auth-request-email", "x-auth-request-groups", "x-auth-roles",
    "x-auth-subject", "x-authenticated-*", "x-authentik-*", "x-certificate", "x-client-cert-*", "x-client-certificate",
    "x-client-dn", "x-client-id", "x-client-key", "x-client-verify", "x-consumer-*", "x-credential-*", "x-customer-id",
    "x-device-id", "x-email", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-ssl-client-*",
    "x-forwarded-tls-client-cert-*", "x-functions-key", "x-goog-authenticated-user-*", "x-goog-iap-*", "x-hasura-*",
    "x-honeycomb-team", "x-identity", "x-impersonate-*", "x-jwt-*", "x-key", "x-login", "x-mashape-key", "x-member-id",
    "x-merchant-id", "x-ms-client-principal-*", "x-ms-token-*", "x-on-behalf-of", "x-org-id", "x-organization-id",
    "x-parse-application-id", "x-parse-client-key", "x-parse-master-key", "x-partner-id", "x-peer-certificate",
    "x-pomerium-claim-*", "x-principal-*", "x-profile-id", "x-rapidapi-key", "x-remote-email", "x-remote-extra-*",
    "x-remote-group", "x-remote-groups", "x-remote-name", "x-remote-uid", "x-scope-orgid", "x-session-key",
    "x-spiffe-id", "x-ssl-cert", "x-ssl-client-*", "x-subject", "x-tenant", "x-tenant-id", "x-tls-client-*", "x-uid",
    "x-user-claims", "x-user-context", "x-user-groups", "x-user-identity", "x-user-roles", "x-vouch-idp-*",
    "x-webauth-*", "x-wsse",
];

/// Headers that a pattern of [`CREDENTIAL_HEADERS`] fits and that do not count: they differ between two tries of one
/// client, and another header says who it is.
pub const EXEMPT_HEADERS: &[&str] = &[
    "*-captcha-token", "*-csrf-token", "*-recaptcha-token", "*-turnstile-token", "*-waf-token", "*-xsrf-token",
    "csrf-token", "mcp-session-id", "postman-token", "xsrf-token",
];

/// Cookies that say nothing of who asks, unless [`credential_cookies`](crate::IdempotencyLayer::credential_cookies)
/// names them: load balancers, firewalls, analytics and consent banners set them, and renew them between two tries. `*`
/// at the end matches any characters.
pub const IGNORED_COOKIES: &[&str] = &[
    "AKA_A2", "AMCVS_*", "AMCV_*", "ARRAffinity", "ARRAffinitySameSite", "ASLBSA", "ASLBSACORS", "AWSALB*", "AWSELB",
    "AWSELBCORS", "ApplicationGatewayAffinity", "ApplicationGatewayAffinityCORS", "BIGipServer*", "DO-LB", "FPAU",
    "FPGCLDC", "FPID", "FPLC", "GAESA", "GCILB", "GCLB", "INGRESSCOOKIE", "MUID", "NRAGENT", "NREUM",
    "OptanonAlertBoxClosed", "OptanonConsent", "QueueITAccepted-*", "ROUTEID", "RT", "SERVERID", "TS01*", "TiPMix",
    "X-Oracle-BMC-LBS-Route", "___utmvc", "__cf_bm", "__cfduid", "__cflb", "__cfruid", "__cfseq*", "__cfwaitingroom",
    "__eoi", "__gads", "__gpi", "__hssc", "__hssrc", "__hstc", "__qca", "__stripe_mid", "__stripe_sid", "__utm*",
    "_abck", "_cfuvid", "_chartbeat2", "_clck", "_clsk", "_cs_c", "_cs_id", "_cs_mk", "_cs_s", "_dc_gtm_*", "_dd_s",
    "_fbc", "_fbp", "_ga", "_ga_*", "_gac_*", "_gat", "_gat_*", "_gcl_*", "_gid", "_hj*", "_hp2_*", "_hp5_*",
    "_lr_hb_*", "_lr_tabs_*", "_lr_uf_*", "_mkto_trk", "_mtm_*", "_parsely_session", "_parsely_visitor", "_pin_unauth",
    "_pk_*", "_px", "_px2", "_px3", "_pxde", "_pxhd", "_pxvid", "_rdt_uuid", "_scid", "_scid_r", "_scor_uid", "_sctr",
    "_shopify_s", "_shopify_y", "_sp_id.*", "_sp_ses.*", "_tt_enable_cookie", "_ttp", "_twpid", "_uetsid", "_uetvid",
    "_vis_opt_*", "_vwo_*", "_ym_*", "acw_tc", "ai_session", "ai_user", "ajs_anonymous_id", "ajs_group_id",
    "ajs_user_id", "ak_bmsc", "akaalb_*", "aliyungf_tc", "aws-waf-token", "bm_lso", "bm_mi", "bm_s", "bm_so", "bm_ss",
    "bm_sv", "bm_sz", "cf_chl_*", "cf_clearance", "cto_bundle", "datadome", "forterToken", "fs_lua", "fs_uid",
    "has_js", "heroku-session-affinity", "hubspotutk", "incap_ses_*", "kndctr_*", "li_fat_id", "mbox",
    "mp_mixpanel__c", "nlbi_*", "optimizely*", "ph_phc_*", "pxcts", "reese84", "s_cc", "s_ecid", "s_fid", "s_ppv",
    "s_sq", "s_vi", "ttcsid", "ttcsid_*", "utag_main", "visid_incap_*", "x-ms-routing-name",
];
