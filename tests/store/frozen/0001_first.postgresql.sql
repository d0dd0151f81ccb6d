CREATE TABLE public.episodes (
    id text NOT NULL,
    problem_text text NOT NULL,
    problem_hash text NOT NULL,
    problem_reference text,
    problem_seed text,
    problem_metadata jsonb NOT NULL,
    domain text NOT NULL,
    task text,
    status text NOT NULL,
    stop_reason text,
    answer text,
    correct boolean,
    error text,
    model text NOT NULL,
    fingerprint text NOT NULL,
    detector text,
    policy text,
    seed text NOT NULL,
    settings jsonb NOT NULL,
    usage_prompt bigint NOT NULL,
    usage_thinking bigint NOT NULL,
    usage_answer bigint NOT NULL,
    usage_inserted bigint NOT NULL,
    usage_discarded bigint NOT NULL,
    thread_id text,
    created_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    heartbeat_at timestamp with time zone,
    owner text
);


--
-- Name: failure_events; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.failure_events (
    episode_id text NOT NULL,
    id text NOT NULL,
    ordinal bigint NOT NULL,
    type text NOT NULL,
    schema_version integer NOT NULL,
    level text NOT NULL,
    kind text NOT NULL,
    step integer NOT NULL,
    "position" bigint NOT NULL,
    score double precision NOT NULL,
    threshold double precision NOT NULL,
    detector text NOT NULL,
    evidence jsonb NOT NULL
);


--
-- Name: interventions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.interventions (
    episode_id text NOT NULL,
    id text NOT NULL,
    ordinal bigint NOT NULL,
    kind text NOT NULL,
    event_id text,
    policy text NOT NULL,
    step integer NOT NULL,
    "position" bigint NOT NULL,
    mode text NOT NULL,
    inserted bytea NOT NULL,
    rolled_back bigint NOT NULL,
    branches jsonb NOT NULL,
    kept text,
    outcome text NOT NULL
);


--
-- Name: nr_agent_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.nr_agent_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: schema_info; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.schema_info (
    id integer NOT NULL,
    library_version text NOT NULL,
    opened_at timestamp with time zone NOT NULL
);


--
-- Name: steps; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.steps (
    episode_id text NOT NULL,
    index integer NOT NULL,
    kind text NOT NULL,
    branch text NOT NULL,
    start bigint NOT NULL,
    ids bytea NOT NULL,
    provenance jsonb NOT NULL,
    logprobs bytea NOT NULL,
    text text NOT NULL,
    stop text NOT NULL,
    discarded boolean NOT NULL,
    readings jsonb NOT NULL
);


--
-- Data for Name: episodes; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.episodes VALUES ('e-completed', 'What is 12 + 35?', 'a06719e6edb3694ea7b3460e3f12dcc5925fac804f3cb95cf0c742e68b02e3a8', '47', '5', '{}', 'math', 'chain_sum', 'completed', 'finished', '47', true, NULL, 'nano', 'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff', NULL, NULL, '18446744073709551615', '{"budget": {"max_tokens": 10}}', 1, 2, 0, 0, 0, 't1', '2026-03-01 08:30:00+00', '2026-03-01 08:30:00+00', '2026-11-23 16:54:40.005787+00', 'elsewhere|pid:[1]|17|1');
INSERT INTO public.episodes VALUES ('e-failed', 'p q', '7d8bb042620e4317edcf21e6bcbee200a19532f3d44a5b774fd475e1c8b4cda9', NULL, '-5', '{"a": [1, null]}', 'general', NULL, 'failed', NULL, NULL, NULL, 'boom ☃', '', '', NULL, NULL, '0', '{}', 0, 0, 0, 0, 0, NULL, '2026-03-01 08:30:00+00', '2026-03-01 08:30:00+00', '2026-11-23 16:54:40.052883+00', 'elsewhere|pid:[1]|17|1');
INSERT INTO public.episodes VALUES ('e-waiting', 'What is 12 + 35?', 'a06719e6edb3694ea7b3460e3f12dcc5925fac804f3cb95cf0c742e68b02e3a8', '47', '5', '{}', 'math', 'chain_sum', 'waiting', NULL, NULL, NULL, NULL, '', '', NULL, NULL, '0', '{}', 0, 0, 0, 0, 0, NULL, '2026-03-01 08:30:00+00', NULL, '2026-11-23 16:54:40.078666+00', 'elsewhere|pid:[1]|17|1');


--
-- Data for Name: failure_events; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.failure_events VALUES ('e-completed', 'v1', 1795452880005395, 'nr.failure', 1, 'intra_step', 'calculation', 1, 20, 0.9, 0.5, 'd', '{"text": "", "pattern": "shift", "channels": [], "features": {}}');
INSERT INTO public.failure_events VALUES ('e-failed', 'v9', 1795452880005402, 'nr.failure', 1, 'instance', 'overthinking', 2, 3, 1, 0.5, 'd', '{"text": "x", "pattern": "spike", "channels": [{"z": 3.5, "channel": "FFN 7:1031", "position": 2}], "features": {"a": 1.5}}');


--
-- Data for Name: interventions; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.interventions VALUES ('e-completed', 'i1', 1795452880005396, 'recheck', 'v1', 'recheck', 1, 20, 'token', '\x07000000', 0, '[]', NULL, 'unclear');


--
-- Data for Name: nr_agent_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.nr_agent_version VALUES ('0001_first');


--
-- Data for Name: schema_info; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.schema_info VALUES (1, '0.1.0', '2026-11-23 16:54:39.996781+00');


--
-- Data for Name: steps; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.steps VALUES ('e-completed', 0, 'prompt', 'main', 0, '\x3c0000007c000000690000006d0000005f00000073000000740000006100000072000000740000007c0000003e000000750000007300000065000000720000000a000000', '[["prompt", 17]]', '\x', '<|im_start|>user
', '', false, '[]');
INSERT INTO public.steps VALUES ('e-completed', 1, 'think', 'main', 100, '\x31000000320000002b00000033000000350000003d00000034000000360000000a0000000a000000', '[["model", 10]]', '\x000000bf0000c07f000080be000080be000080be000080be000080be000080be000080be000080be', '12+35=46

', '', false, '[{"std": 0.3, "mean": 0.1, "level": "intra_step", "score": 0.9, "tokens": 3, "maximum": 2.5, "minimum": -1.0}]');
INSERT INTO public.steps VALUES ('e-completed', 2, 'think', 'main', 200, '\x3c0000007c0000007200000065000000630000006800000065000000630000006b0000007c0000003e00000031000000320000002b00000033000000350000003d00000034000000370000000a0000000a000000', '[["model", 21]]', '\x', '<|recheck|>12+35=47

', '', false, '[]');
INSERT INTO public.steps VALUES ('e-completed', 3, 'answer', 'main', 300, '\x3c0000002f0000007400000068000000690000006e0000006b0000003e0000000a0000000a0000005c000000620000006f0000007800000065000000640000007b00000034000000370000007d0000003c0000007c000000690000006d0000005f000000650000006e000000640000007c0000003e000000', '[["model", 30]]', '\x', '</think>

\boxed{47}<|im_end|>', '', false, '[]');
INSERT INTO public.steps VALUES ('e-failed', 0, 'prompt', 'main', 0, '\x3c0000007c000000690000006d0000005f00000073000000740000006100000072000000740000007c0000003e000000750000007300000065000000720000000a000000', '[["prompt", 17]]', '\x', '<|im_start|>user
', '', false, '[]');
INSERT INTO public.steps VALUES ('e-failed', 1, 'think', 'main', 100, '\x31000000320000002b00000033000000350000003d00000034000000360000000a0000000a000000', '[["model", 10]]', '\x', '12+35=46

', '', false, '[]');
INSERT INTO public.steps VALUES ('e-failed', 2, 'think', 'main', 200, '\x3c0000007c0000007200000065000000630000006800000065000000630000006b0000007c0000003e00000031000000320000002b00000033000000350000003d00000034000000370000000a0000000a000000', '[["model", 21]]', '\x', '<|recheck|>12+35=47

', '', false, '[]');
INSERT INTO public.steps VALUES ('e-failed', 3, 'answer', 'main', 300, '\x3c0000002f0000007400000068000000690000006e0000006b0000003e0000000a0000000a0000005c000000620000006f0000007800000065000000640000007b00000034000000370000007d0000003c0000007c000000690000006d0000005f000000650000006e000000640000007c0000003e000000', '[["model", 30]]', '\x', '</think>

\boxed{47}<|im_end|>', '', false, '[]');


--
-- Name: nr_agent_version nr_agent_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.nr_agent_version
    ADD CONSTRAINT nr_agent_version_pkc PRIMARY KEY (version_num);


--
-- Name: episodes pk_episodes; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.episodes
    ADD CONSTRAINT pk_episodes PRIMARY KEY (id);


--
-- Name: failure_events pk_failure_events; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.failure_events
    ADD CONSTRAINT pk_failure_events PRIMARY KEY (episode_id, id);


--
-- Name: interventions pk_interventions; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.interventions
    ADD CONSTRAINT pk_interventions PRIMARY KEY (episode_id, id);


--
-- Name: schema_info pk_schema_info; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.schema_info
    ADD CONSTRAINT pk_schema_info PRIMARY KEY (id);


--
-- Name: steps pk_steps; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.steps
    ADD CONSTRAINT pk_steps PRIMARY KEY (episode_id, index);


--
-- Name: ix_episodes_created_at_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_episodes_created_at_id ON public.episodes USING btree (created_at, id);


--
-- Name: ix_episodes_domain_correct; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_episodes_domain_correct ON public.episodes USING btree (domain, correct);


--
-- Name: ix_episodes_problem_hash; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_episodes_problem_hash ON public.episodes USING btree (problem_hash);


--
-- Name: ix_episodes_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_episodes_status ON public.episodes USING btree (status);


--
-- Name: ix_episodes_task_correct; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_episodes_task_correct ON public.episodes USING btree (task, correct);


--
-- Name: ix_failure_events_level_kind; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_failure_events_level_kind ON public.failure_events USING btree (level, kind);


--
-- Name: ix_interventions_kind; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_interventions_kind ON public.interventions USING btree (kind);


--
-- Name: failure_events fk_failure_events_episode_id_episodes; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.failure_events
    ADD CONSTRAINT fk_failure_events_episode_id_episodes FOREIGN KEY (episode_id) REFERENCES public.episodes(id) ON DELETE CASCADE;


--
-- Name: interventions fk_interventions_episode_id_episodes; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.interventions
    ADD CONSTRAINT fk_interventions_episode_id_episodes FOREIGN KEY (episode_id) REFERENCES public.episodes(id) ON DELETE CASCADE;


--
-- Name: steps fk_steps_episode_id_episodes; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.steps
    ADD CONSTRAINT fk_steps_episode_id_episodes FOREIGN KEY (episode_id) REFERENCES public.episodes(id) ON DELETE CASCADE;


--
-- PostgreSQL database dump complete
--


