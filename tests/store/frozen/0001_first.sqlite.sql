BEGIN TRANSACTION;
CREATE TABLE episodes (
	id TEXT NOT NULL, 
	problem_text TEXT NOT NULL, 
	problem_hash TEXT NOT NULL, 
	problem_reference TEXT, 
	problem_seed TEXT, 
	problem_metadata JSON NOT NULL, 
	domain TEXT NOT NULL, 
	task TEXT, 
	status TEXT NOT NULL, 
	stop_reason TEXT, 
	answer TEXT, 
	correct BOOLEAN, 
	error TEXT, 
	model TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	detector TEXT, 
	policy TEXT, 
	seed TEXT NOT NULL, 
	settings JSON NOT NULL, 
	usage_prompt BIGINT NOT NULL, 
	usage_thinking BIGINT NOT NULL, 
	usage_answer BIGINT NOT NULL, 
	usage_inserted BIGINT NOT NULL, 
	usage_discarded BIGINT NOT NULL, 
	thread_id TEXT, 
	created_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	heartbeat_at DATETIME, 
	owner TEXT, 
	CONSTRAINT pk_episodes PRIMARY KEY (id)
);
INSERT INTO "episodes" VALUES('e-completed','What is 12 + 35?','a06719e6edb3694ea7b3460e3f12dcc5925fac804f3cb95cf0c742e68b02e3a8','47','5','{}','math','chain_sum','completed','finished','47',1,NULL,'nano','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',NULL,NULL,'18446744073709551615','{"budget": {"max_tokens": 10}}',1,2,0,0,0,'t1','2026-03-01 08:30:00.000000','2026-03-01 08:30:00.000000','2026-11-23 16:39:59.043692','elsewhere|pid:[1]|17|1');
INSERT INTO "episodes" VALUES('e-failed','p q','7d8bb042620e4317edcf21e6bcbee200a19532f3d44a5b774fd475e1c8b4cda9',NULL,'-5','{"a": [1, null]}','general',NULL,'failed',NULL,NULL,NULL,'boom ☃','','',NULL,NULL,'0','{}',0,0,0,0,0,NULL,'2026-03-01 08:30:00.000000','2026-03-01 08:30:00.000000','2026-11-23 16:39:59.074888','elsewhere|pid:[1]|17|1');
INSERT INTO "episodes" VALUES('e-waiting','What is 12 + 35?','a06719e6edb3694ea7b3460e3f12dcc5925fac804f3cb95cf0c742e68b02e3a8','47','5','{}','math','chain_sum','waiting',NULL,NULL,NULL,NULL,'','',NULL,NULL,'0','{}',0,0,0,0,0,NULL,'2026-03-01 08:30:00.000000',NULL,'2026-11-23 16:39:59.080545','elsewhere|pid:[1]|17|1');
CREATE TABLE failure_events (
	episode_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	ordinal BIGINT NOT NULL, 
	type TEXT NOT NULL, 
	schema_version INTEGER NOT NULL, 
	level TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	step INTEGER NOT NULL, 
	position BIGINT NOT NULL, 
	score FLOAT NOT NULL, 
	threshold FLOAT NOT NULL, 
	detector TEXT NOT NULL, 
	evidence JSON NOT NULL, 
	CONSTRAINT pk_failure_events PRIMARY KEY (episode_id, id), 
	CONSTRAINT fk_failure_events_episode_id_episodes FOREIGN KEY(episode_id) REFERENCES episodes (id) ON DELETE CASCADE
);
INSERT INTO "failure_events" VALUES('e-completed','v1',1795451999043407,'nr.failure',1,'intra_step','calculation',1,20,0.9,0.5,'d','{"channels": [], "features": {}, "pattern": "shift", "text": ""}');
INSERT INTO "failure_events" VALUES('e-failed','v9',1795451999043414,'nr.failure',1,'instance','overthinking',2,3,1.0,0.5,'d','{"channels": [{"channel": "FFN 7:1031", "z": 3.5, "position": 2, "writes": []}], "features": {"a": 1.5}, "pattern": "spike", "text": "x"}');
CREATE TABLE interventions (
	episode_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	ordinal BIGINT NOT NULL, 
	kind TEXT NOT NULL, 
	event_id TEXT, 
	policy TEXT NOT NULL, 
	step INTEGER NOT NULL, 
	position BIGINT NOT NULL, 
	mode TEXT NOT NULL, 
	inserted BLOB NOT NULL, 
	rolled_back BIGINT NOT NULL, 
	branches JSON NOT NULL, 
	kept TEXT, 
	outcome TEXT NOT NULL, 
	CONSTRAINT pk_interventions PRIMARY KEY (episode_id, id), 
	CONSTRAINT fk_interventions_episode_id_episodes FOREIGN KEY(episode_id) REFERENCES episodes (id) ON DELETE CASCADE
);
INSERT INTO "interventions" VALUES('e-completed','i1',1795451999043408,'recheck','v1','recheck',1,20,'token',X'07000000',0,'[]',NULL,'unclear');
CREATE TABLE nr_agent_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT nr_agent_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "nr_agent_version" VALUES('0001_first');
CREATE TABLE schema_info (
	id INTEGER NOT NULL, 
	library_version TEXT NOT NULL, 
	opened_at DATETIME NOT NULL, 
	CONSTRAINT pk_schema_info PRIMARY KEY (id)
);
INSERT INTO "schema_info" VALUES(1,'0.1.0','2026-11-23 16:39:59.032999');
CREATE TABLE steps (
	episode_id TEXT NOT NULL, 
	"index" INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	branch TEXT NOT NULL, 
	start BIGINT NOT NULL, 
	ids BLOB NOT NULL, 
	provenance JSON NOT NULL, 
	logprobs BLOB NOT NULL, 
	text TEXT NOT NULL, 
	stop TEXT NOT NULL, 
	discarded BOOLEAN NOT NULL, 
	readings JSON NOT NULL, 
	CONSTRAINT pk_steps PRIMARY KEY (episode_id, "index"), 
	CONSTRAINT fk_steps_episode_id_episodes FOREIGN KEY(episode_id) REFERENCES episodes (id) ON DELETE CASCADE
);
INSERT INTO "steps" VALUES('e-completed',0,'prompt','main',0,X'3C0000007C000000690000006D0000005F00000073000000740000006100000072000000740000007C0000003E000000750000007300000065000000720000000A000000','[["prompt", 17]]',X'','<|im_start|>user
','',0,'[]');
INSERT INTO "steps" VALUES('e-completed',1,'think','main',100,X'31000000320000002B00000033000000350000003D00000034000000360000000A0000000A000000','[["model", 10]]',X'000000BF0000C07F000080BE000080BE000080BE000080BE000080BE000080BE000080BE000080BE','12+35=46

','',0,'[{"level": "intra_step", "tokens": 3, "mean": 0.1, "maximum": 2.5, "minimum": -1.0, "std": 0.3, "score": 0.9}]');
INSERT INTO "steps" VALUES('e-completed',2,'think','main',200,X'3C0000007C0000007200000065000000630000006800000065000000630000006B0000007C0000003E00000031000000320000002B00000033000000350000003D00000034000000370000000A0000000A000000','[["model", 21]]',X'','<|recheck|>12+35=47

','',0,'[]');
INSERT INTO "steps" VALUES('e-completed',3,'answer','main',300,X'3C0000002F0000007400000068000000690000006E0000006B0000003E0000000A0000000A0000005C000000620000006F0000007800000065000000640000007B00000034000000370000007D0000003C0000007C000000690000006D0000005F000000650000006E000000640000007C0000003E000000','[["model", 30]]',X'','</think>

\boxed{47}<|im_end|>','',0,'[]');
INSERT INTO "steps" VALUES('e-failed',0,'prompt','main',0,X'3C0000007C000000690000006D0000005F00000073000000740000006100000072000000740000007C0000003E000000750000007300000065000000720000000A000000','[["prompt", 17]]',X'','<|im_start|>user
','',0,'[]');
INSERT INTO "steps" VALUES('e-failed',1,'think','main',100,X'31000000320000002B00000033000000350000003D00000034000000360000000A0000000A000000','[["model", 10]]',X'','12+35=46

','',0,'[]');
INSERT INTO "steps" VALUES('e-failed',2,'think','main',200,X'3C0000007C0000007200000065000000630000006800000065000000630000006B0000007C0000003E00000031000000320000002B00000033000000350000003D00000034000000370000000A0000000A000000','[["model", 21]]',X'','<|recheck|>12+35=47

','',0,'[]');
INSERT INTO "steps" VALUES('e-failed',3,'answer','main',300,X'3C0000002F0000007400000068000000690000006E0000006B0000003E0000000A0000000A0000005C000000620000006F0000007800000065000000640000007B00000034000000370000007D0000003C0000007C000000690000006D0000005F000000650000006E000000640000007C0000003E000000','[["model", 30]]',X'','</think>

\boxed{47}<|im_end|>','',0,'[]');
CREATE INDEX ix_episodes_problem_hash ON episodes (problem_hash);
CREATE INDEX ix_episodes_task_correct ON episodes (task, correct);
CREATE INDEX ix_episodes_created_at_id ON episodes (created_at, id);
CREATE INDEX ix_episodes_domain_correct ON episodes (domain, correct);
CREATE INDEX ix_episodes_status ON episodes (status);
CREATE INDEX ix_failure_events_level_kind ON failure_events (level, kind);
CREATE INDEX ix_interventions_kind ON interventions (kind);
COMMIT;
