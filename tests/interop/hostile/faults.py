"""The counter each attack must move: `towpath_downstream_faults_total{fault="…"}` for callers, upstream for
backends. An attack that is not named here breaks no rule that has a counter.
"""

DOWNSTREAM = {
    "frame_too_large": "frame_too_large",
    "hpack_index_0": "hpack_index",
    "hpack_index_unknown": "hpack_index",
    "hpack_table_size_above_setting": "hpack_table_size",
    "hpack_integer_without_end": "hpack_integer",
    "hpack_string_cut_off": "hpack_truncated",
    "hpack_huffman_eos": "hpack_huffman",
    "hpack_huffman_padding": "hpack_huffman",
    "frame_between_continuations": "continuation_expected",
    "continuation_alone": "continuation_unexpected",
    "even_stream": "stream_id",
    "stream_goes_back": "stream_id",
    "headers_on_stream_0": "stream_zero",
    "data_on_idle": "stream_idle",
    "reset_on_idle": "stream_idle",
    "window_on_idle": "stream_idle",
    "push_promise_from_a_caller": "push_promise",
    "data_padding_too_long": "padding_too_long",
    "settings_ack_with_payload": "frame_length",
    "settings_odd_length": "frame_length",
    "settings_on_a_stream": "stream_not_zero",
    "settings_push_2": "setting_value",
    "settings_window_2_31": "setting_window",
    "settings_frame_size_1": "setting_value",
    "ping_of_7_bytes": "frame_length",
    "ping_on_a_stream": "stream_not_zero",
    "goaway_on_a_stream": "stream_not_zero",
    "window_of_0_on_the_connection": "window_update_zero",
    "window_of_0_on_a_stream": "window_update_zero",
    "window_overflow_on_the_connection": "window_overflow",
    "window_overflow_on_a_stream": "window_overflow",
    "reset_of_3_bytes": "frame_length",
    "priority_of_4_bytes": "frame_length",
    "data_after_end_stream": "stream_closed",
    "more_data_than_the_window": "window_exceeded",
    "malformed_te_gzip": "field_te",
    "malformed_pseudo_after_field": "pseudo_order",
    "malformed_pseudo_unknown": "pseudo_unknown",
    "malformed_pseudo_twice": "pseudo_duplicate",
    "malformed_method_missing": "pseudo_missing",
    "malformed_path_missing": "pseudo_missing",
    "malformed_scheme_missing": "pseudo_missing",
    "malformed_path_empty": "pseudo_value",
    "malformed_path_with_crlf": "pseudo_value",
    "malformed_authority_with_crlf": "pseudo_value",
    "malformed_content_length_not_a_number": "content_length_invalid",
    "malformed_content_length_too_large": "content_length_mismatch",
    "malformed_trailers_with_pseudo": "pseudo_in_trailers",
    "malformed_trailers_with_connection": "field_connection_specific",
    "malformed_trailers_with_crlf": "field_value",
    "trailers_without_end_stream": "trailers_without_end",
    "tls_hello": "client_speaks_tls",
    "http_1_request": "client_speaks_http1",
    "garbage": "preface",
    "preface_with_a_wrong_end": "preface",
    "no_settings_first": "first_frame_not_settings",
    "slow_preface": "preface_timeout",
    "rapid_reset": "flood_rapid_reset",
    "reset_by_provocation": "flood_made_reset",
    "ping_flood": "flood_ping",
    "settings_flood": "flood_settings",
    "empty_data_flood": "flood_empty",
    "priority_flood": "flood_priority",
    "empty_continuation_flood": "flood_empty",
    "continuation_flood": "flood_continuation",
    "padding_flood": "flood_empty",
    "header_list_of_a_mebibyte": "header_block_too_large",
    "hpack_bomb": "header_list_too_large",
    "many_small_fields": "header_list_too_large",
    "never_ending_trailers": "flood_continuation",
    "streams_past_the_limit": "streams_exceeded",
}
for _name in ("connection", "keep_alive", "proxy_connection", "transfer_encoding", "upgrade"):
    DOWNSTREAM[f"malformed_{_name}"] = "field_connection_specific"
for _name in ("with_crlf", "with_lf", "with_nul", "with_leading_space", "with_trailing_tab"):
    DOWNSTREAM[f"malformed_value_{_name}"] = "field_value"
for _name in ("uppercase_name", "name_with_space", "name_with_colon", "name_with_crlf", "name_empty", "name_above_ascii"):
    DOWNSTREAM[f"malformed_{_name}"] = "field_name"

UPSTREAM = {
    "speaks_http_1": "server_speaks_http1",
    "speaks_tls": "server_speaks_tls",
    "speaks_garbage": "first_frame_not_settings",
    "push_promise": "push_promise",
    "headers_on_an_even_stream": "stream_id",
    "headers_on_an_idle_stream": "stream_idle",
    "data_before_headers": "data_before_headers",
    "frame_too_large": "frame_too_large",
    "bad_hpack": "hpack_index",
    "settings_odd_length": "frame_length",
    "settings_window_2_31": "setting_window",
    "settings_push_1": "setting_value",
    "ping_of_7_bytes": "frame_length",
    "window_of_0": "window_update_zero",
    "window_overflow": "window_overflow",
    "goaway_on_a_stream": "stream_not_zero",
    "data_after_end_stream": "stream_closed",
    "data_beyond_the_window": "window_exceeded",
    "headers_no_status": "pseudo_missing",
    "headers_status_text": "pseudo_value",
    "headers_status_twice": "pseudo_duplicate",
    "headers_request_pseudo": "pseudo_unknown",
    "headers_uppercase": "field_name",
    "headers_connection": "field_connection_specific",
    "headers_transfer_encoding": "field_connection_specific",
    "headers_crlf": "field_value",
    "headers_nul": "field_value",
    "trailers_pseudo": "pseudo_in_trailers",
    "trailers_crlf": "field_value",
    "trailers_connection": "field_connection_specific",
    "trailers_without_end_stream": "trailers_without_end",
    "ping_flood": "flood_ping",
    "settings_flood": "flood_settings",
    "endless_continuation": "flood_continuation",
    "huge_headers": "header_block_too_large",
    "hpack_bomb": "header_list_too_large",
    "endless_informational": "flood_informational",
}


def counter(attack):
    """The text that names the counters one of which must rise, or None. Which of a flood's bounds is met
    first depends on how the bytes arrive: any `flood_…` will do.
    """
    if attack.startswith("backend_"):
        side, fault = "upstream", UPSTREAM.get(attack.removeprefix("backend_"))
    else:
        side, fault = "downstream", DOWNSTREAM.get(attack)
    if fault is None:
        return None
    text = f'towpath_{side}_faults_total{{fault="{fault}'
    return f'towpath_{side}_faults_total{{fault="flood_' if fault.startswith("flood_") else text + '"'
