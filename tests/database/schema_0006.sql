-- A catalog as a version with schema 0006 left it: two instances of pydicom's test files, one of them sent twice.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0006');
CREATE TABLE archive (
	archive_key INTEGER NOT NULL CONSTRAINT there_is_one CHECK (archive_key = 1), 
	archive_id TEXT, 
	created_at TEXT NOT NULL, 
	created_by TEXT NOT NULL, 
	migrated_at TEXT NOT NULL, 
	migrated_by TEXT NOT NULL, 
	PRIMARY KEY (archive_key)
);
INSERT INTO "archive" VALUES(1,'c59cc7c2-4057-4eab-945b-eef11b179867','2026-11-23T01:45:55.559781Z','0.1.0','2026-11-23T01:45:55.559781Z','0.1.0');
CREATE TABLE associations (
	association_key INTEGER NOT NULL, 
	association_id TEXT NOT NULL, 
	receiver TEXT NOT NULL, 
	opened_at TEXT NOT NULL, 
	closed_at TEXT, 
	calling_ae_title TEXT NOT NULL, 
	called_ae_title TEXT NOT NULL, 
	peer_address TEXT NOT NULL, 
	implementation_class_uid TEXT NOT NULL, 
	implementation_version_name TEXT NOT NULL, 
	rejection_result INTEGER, 
	rejection_source INTEGER, 
	rejection_reason INTEGER, 
	contexts_accepted INTEGER NOT NULL, 
	contexts_refused INTEGER NOT NULL, 
	contexts TEXT, 
	messages INTEGER NOT NULL, 
	bytes_received INTEGER NOT NULL, 
	ended TEXT NOT NULL, 
	words TEXT NOT NULL, user_identity_type INTEGER, user_identity_name TEXT, 
	PRIMARY KEY (association_key), 
	CONSTRAINT associations_id UNIQUE (association_id)
);
INSERT INTO "associations" VALUES(1,'6cbd9c04-1','1153-42b54620','2026-11-23T01:45:57.220414Z','2026-11-23T01:45:57.286915Z','SCU1','KEEP','127.0.0.1','1.2.276.0.7230010.3.0.3.6.7','OFFIS_DCMTK_367',NULL,NULL,NULL,4,0,'[[1,"1.2.840.10008.5.1.4.1.1.2",0,"1.2.840.10008.1.2.1"],[3,"1.2.840.10008.5.1.4.1.1.2",0,"1.2.840.10008.1.2.2"],[5,"1.2.840.10008.5.1.4.1.1.4",0,"1.2.840.10008.1.2.1"],[7,"1.2.840.10008.5.1.4.1.1.4",0,"1.2.840.10008.1.2.2"]]',2,48873,'released','',NULL,NULL);
INSERT INTO "associations" VALUES(2,'6cbd9c04-2','1153-42b54620','2026-11-23T01:45:57.333071Z','2026-11-23T01:45:57.338747Z','SCU1','KEEP','127.0.0.1','1.2.276.0.7230010.3.0.3.6.7','OFFIS_DCMTK_367',NULL,NULL,NULL,2,0,'[[1,"1.2.840.10008.5.1.4.1.1.2",0,"1.2.840.10008.1.2.1"],[3,"1.2.840.10008.5.1.4.1.1.2",0,"1.2.840.10008.1.2.2"]]',1,39210,'released','',NULL,NULL);
INSERT INTO "associations" VALUES(3,'6cbd9c04-3','1153-42b54620','2026-11-23T01:46:03.335989Z','2026-11-23T01:46:10.229764Z','KEEP','KEEP','127.0.0.1','2.25.155303472962188026748080900074307996187','STOWKEEPER_0_1',NULL,NULL,NULL,1,0,'[[1,"1.2.840.10008.1.20.1",0,"1.2.840.10008.1.2.1"]]',1,559,'aborted','aborted (0,0): by service user',NULL,NULL);
CREATE TABLE audit (
	audit_key INTEGER NOT NULL, 
	at TEXT NOT NULL, 
	who TEXT NOT NULL, 
	action TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	PRIMARY KEY (audit_key)
);
INSERT INTO "audit" VALUES(1,'2026-11-23T01:45:58.976504Z','ann','peer added','OURSELF','KEEP@127.0.0.1:9');
CREATE TABLE changes (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	receipt_key INTEGER NOT NULL, 
	version_key INTEGER, 
	previous_version_key INTEGER, 
	detail TEXT, 
	FOREIGN KEY(receipt_key) REFERENCES receipts (receipt_key), 
	FOREIGN KEY(version_key) REFERENCES versions (version_key)
);
INSERT INTO "changes" VALUES(1,'2026-11-23T01:45:57.344903Z','received',1,1,NULL,NULL);
INSERT INTO "changes" VALUES(2,'2026-11-23T01:45:57.344903Z','received',2,2,NULL,NULL);
INSERT INTO "changes" VALUES(3,'2026-11-23T01:45:57.371629Z','received',3,1,NULL,NULL);
INSERT INTO "changes" VALUES(4,'2026-11-23T01:45:58.131772Z','study_started',1,1,NULL,'revision 1 of the study has begun');
INSERT INTO "changes" VALUES(5,'2026-11-23T01:45:58.131772Z','study_started',2,2,NULL,'revision 1 of the study has begun');
INSERT INTO "changes" VALUES(6,'2026-11-23T01:46:03.390524Z','held',1,1,NULL,'commitment 2.25.212645041423086079183430200918183766186 asked by KEEP, of the peer OURSELF');
CREATE TABLE commitment_instances (
	commitment_key INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	sop_class_uid TEXT NOT NULL, 
	sop_instance_uid TEXT NOT NULL, 
	uid_hash INTEGER NOT NULL, 
	version_key INTEGER, 
	outcome TEXT NOT NULL CONSTRAINT outcome_is_known CHECK (outcome IN ('', 'committed', 'failed', 'unasked')), 
	reason INTEGER, 
	words TEXT NOT NULL, 
	checked_at TEXT, 
	PRIMARY KEY (commitment_key, position), 
	FOREIGN KEY(commitment_key) REFERENCES commitments (commitment_key) ON DELETE CASCADE, 
	FOREIGN KEY(version_key) REFERENCES versions (version_key)
)
 WITHOUT ROWID

;
INSERT INTO "commitment_instances" VALUES(1,0,'1.2.840.10008.5.1.4.1.1.2','1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322',264133326194014,1,'',NULL,'',NULL);
INSERT INTO "commitment_instances" VALUES(2,0,'1.2.840.10008.5.1.4.1.1.2','1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322',264133326194014,1,'committed',NULL,'','2026-11-23T01:46:03.390524Z');
INSERT INTO "commitment_instances" VALUES(3,0,'1.2.840.10008.5.1.4.1.1.2','1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322',264133326194014,1,'',NULL,'',NULL);
CREATE TABLE commitment_reports (
	report_key INTEGER NOT NULL, 
	commitment_key INTEGER NOT NULL, 
	at TEXT NOT NULL, 
	way TEXT NOT NULL, 
	status INTEGER, 
	words TEXT NOT NULL, 
	seconds FLOAT NOT NULL, 
	PRIMARY KEY (report_key), 
	FOREIGN KEY(commitment_key) REFERENCES commitments (commitment_key) ON DELETE CASCADE
);
INSERT INTO "commitment_reports" VALUES(1,2,'2026-11-23T01:46:03.424830Z','new association',NULL,'127.0.0.1:9 cannot be reached: nothing listens on that port.',4.04986400008056079968e-03);
CREATE TABLE commitments (
	commitment_key INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	role TEXT NOT NULL CONSTRAINT role_is_known CHECK (role IN ('provider', 'user')), 
	way TEXT NOT NULL, 
	transaction_uid TEXT NOT NULL, 
	state TEXT NOT NULL CONSTRAINT state_is_known CHECK (state IN ('received', 'checked', 'reported', 'undelivered', 'requested', 'accepted', 'refused', 'committed', 'partial', 'failed', 'expired', 'cancelled')), 
	peer TEXT NOT NULL, 
	peer_ae_title TEXT NOT NULL, 
	own_ae_title TEXT NOT NULL, 
	peer_address TEXT NOT NULL, 
	association_id TEXT NOT NULL, 
	content TEXT NOT NULL, 
	instances INTEGER NOT NULL, 
	failures INTEGER NOT NULL, 
	duplicate_of INTEGER, 
	replaces INTEGER, 
	job_id TEXT NOT NULL, 
	requested_at TEXT NOT NULL, 
	checked_at TEXT, 
	reported_at TEXT, 
	expires_at TEXT, 
	report_attempts INTEGER NOT NULL, 
	error TEXT NOT NULL, 
	FOREIGN KEY(duplicate_of) REFERENCES commitments (commitment_key), 
	FOREIGN KEY(replaces) REFERENCES commitments (commitment_key)
);
INSERT INTO "commitments" VALUES(1,'user','DIMSE','2.25.212645041423086079183430200918183766186','accepted','','KEEP','KEEP','127.0.0.1:46047','','9e9729e0e1e49e257305ead52af0b2f012378db4a09953b0e291363efe5cdd0c',1,0,NULL,NULL,'5ebaa97a-6b80-45a5-8460-11a0eaeba5b9','2026-11-23T01:46:02.829354Z',NULL,NULL,'2026-11-30T01:46:02.829354Z',0,'');
INSERT INTO "commitments" VALUES(2,'provider','DIMSE','2.25.212645041423086079183430200918183766186','checked','OURSELF','KEEP','KEEP','127.0.0.1','6cbd9c04-3','9e9729e0e1e49e257305ead52af0b2f012378db4a09953b0e291363efe5cdd0c',1,0,NULL,NULL,'38275bef-007c-4abc-a6f4-f5ca462f390a','2026-11-23T01:46:03.339495Z','2026-11-23T01:46:03.390524Z',NULL,NULL,1,'127.0.0.1:9 cannot be reached: nothing listens on that port.');
INSERT INTO "commitments" VALUES(3,'user','DIMSE','2.25.220464669665819295138419115371341207567','requested','','AWAY','KEEP','127.0.0.1:9','','9e9729e0e1e49e257305ead52af0b2f012378db4a09953b0e291363efe5cdd0c',1,0,NULL,NULL,'cdf1e574-83fe-4f8d-8c40-edcdcece13cb','2026-11-23T01:46:06.807491Z',NULL,NULL,'2026-11-30T01:46:06.807491Z',0,'127.0.0.1:9 cannot be reached: nothing listens on that port.');
CREATE TABLE consumers (
	name TEXT NOT NULL, 
	seq INTEGER NOT NULL, 
	PRIMARY KEY (name)
)
 WITHOUT ROWID

;
INSERT INTO "consumers" VALUES('studies',6);
CREATE TABLE credentials (
	credential_key INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	kind TEXT NOT NULL CONSTRAINT kind_is_known CHECK (kind IN ('token', 'password')), 
	role TEXT NOT NULL CONSTRAINT role_is_known CHECK (role IN ('none', 'read', 'operate', 'admin')), 
	may_store INTEGER NOT NULL, 
	secret_hash TEXT NOT NULL, 
	created_at TEXT NOT NULL, 
	created_by TEXT NOT NULL, 
	PRIMARY KEY (credential_key), 
	CONSTRAINT credentials_name UNIQUE (name)
);
CREATE TABLE holds (
	version_key INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	held_since TEXT NOT NULL, 
	PRIMARY KEY (version_key, reason), 
	FOREIGN KEY(version_key) REFERENCES versions (version_key)
)
 WITHOUT ROWID

;
INSERT INTO "holds" VALUES(1,'commitment 2.25.212645041423086079183430200918183766186 asked by KEEP, of the peer OURSELF','2026-11-23T01:46:03.390524Z');
CREATE TABLE instances (
	instance_key INTEGER NOT NULL, 
	sop_instance_uid TEXT NOT NULL, 
	current_version_key INTEGER, 
	uid_hash INTEGER NOT NULL, 
	PRIMARY KEY (instance_key)
);
INSERT INTO "instances" VALUES(1,'1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322',1,264133326194014);
INSERT INTO "instances" VALUES(2,'1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457',2,263718288869833);
CREATE TABLE job_items (
	job_key INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	outcome TEXT NOT NULL, 
	code INTEGER, 
	words TEXT NOT NULL, 
	done_at TEXT, 
	PRIMARY KEY (job_key, position), 
	FOREIGN KEY(job_key) REFERENCES jobs (job_key) ON DELETE CASCADE
)
 WITHOUT ROWID

;
CREATE TABLE job_lanes (
	lane TEXT NOT NULL, 
	failures INTEGER NOT NULL, 
	blocked_until TEXT NOT NULL, 
	words TEXT NOT NULL, 
	PRIMARY KEY (lane)
)
 WITHOUT ROWID

;
INSERT INTO "job_lanes" VALUES('peer:AWAY@127.0.0.1:9',1,'2026-11-23T01:46:39.620041Z','127.0.0.1:9 cannot be reached: nothing listens on that port.');
INSERT INTO "job_lanes" VALUES('peer:OURSELF',1,'2026-11-23T01:46:35.574276Z','127.0.0.1:9 cannot be reached: nothing listens on that port.');
CREATE TABLE jobs (
	job_key INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	state TEXT NOT NULL CONSTRAINT state_is_known CHECK (state IN ('pending', 'running', 'paused', 'retry', 'success', 'failure', 'cancelled')), 
	wish TEXT NOT NULL CONSTRAINT wish_is_known CHECK (wish IN ('', 'pause', 'cancel')), 
	priority INTEGER NOT NULL, 
	lane TEXT NOT NULL, 
	step TEXT NOT NULL, 
	arguments TEXT NOT NULL, 
	checkpoint TEXT NOT NULL, 
	items_total INTEGER NOT NULL, 
	items_done INTEGER NOT NULL, 
	subject TEXT NOT NULL, 
	peer TEXT NOT NULL, 
	created_at TEXT NOT NULL, 
	created_by TEXT NOT NULL, 
	due_at TEXT NOT NULL, 
	started_at TEXT, 
	finished_at TEXT, 
	seconds_run FLOAT NOT NULL, 
	attempts INTEGER NOT NULL, 
	failures INTEGER NOT NULL, 
	faults INTEGER NOT NULL, 
	error TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	heartbeat INTEGER NOT NULL, 
	CONSTRAINT jobs_id UNIQUE (job_id)
);
INSERT INTO "jobs" VALUES(1,'93468048-1bd8-460c-b503-a054e2602d01','scrub','pending','',0,'archive','','{}','{"round":{"number":1,"began_at":"2026-11-23T01:45:57.185792Z","counted_at":"2026-11-23T01:45:57.185792Z","total":0,"left":0,"files_expected":0,"after":0,"files":0,"size":0,"whole":0,"found_before":{},"words":"round 1, begun 2026-11-23T01:45:57.185792Z: nothing was to be read","is_over":true},"found":{}}',0,0,'','','2026-11-23T01:45:56.954063Z','settings','2026-11-24T01:45:57.274150Z','2026-11-23T01:45:57.135389Z',NULL,0.0838991549999264,1,0,0,'','',1);
INSERT INTO "jobs" VALUES(2,'5ebaa97a-6b80-45a5-8460-11a0eaeba5b9','commitment-request','pending','',0,'','await','{"transaction_uid":"2.25.212645041423086079183430200918183766186","terms":{"keep_open_seconds":10.0,"report_awaited_seconds":604800.0,"re_ask_times":0},"way_to_peer":{"tls":false,"connect_seconds":30.0,"answer_seconds":30.0}}','{"look_seconds":4.0}',0,0,'2.25.212645041423086079183430200918183766186','','2026-11-23T01:46:02.829354Z','ann','2026-11-23T01:46:10.488293Z','2026-11-23T01:46:03.315210Z',NULL,5.87201229996026086155e-02,3,0,0,'','',3);
INSERT INTO "jobs" VALUES(3,'38275bef-007c-4abc-a6f4-f5ca462f390a','commitment','retry','',0,'peer:OURSELF','report','{"commitment_key":2}','{"reporting_since":"2026-11-23T01:46:03.405301Z","failing":{"since":"2026-11-23T01:46:03.405301Z","seconds":0.016565,"last":"2026-11-23T01:46:03.421882Z"}}',1,1,'2.25.212645041423086079183430200918183766186','OURSELF','2026-11-23T01:46:03.339495Z','peer OURSELF','2026-11-23T01:46:35.574276Z','2026-11-23T01:46:03.359935Z',NULL,5.79830579999907058663e-02,2,1,0,'127.0.0.1:9 cannot be reached: nothing listens on that port.','',2);
INSERT INTO "jobs" VALUES(4,'cdf1e574-83fe-4f8d-8c40-edcdcece13cb','commitment-request','retry','',0,'peer:AWAY@127.0.0.1:9','','{"transaction_uid":"2.25.220464669665819295138419115371341207567","terms":{"keep_open_seconds":10.0,"report_awaited_seconds":604800.0,"re_ask_times":0},"way_to_peer":{"tls":false,"connect_seconds":30.0,"answer_seconds":30.0}}','{}',0,0,'2.25.220464669665819295138419115371341207567','','2026-11-23T01:46:06.807491Z','ann','2026-11-23T01:46:39.620041Z','2026-11-23T01:46:07.507681Z',NULL,1.04081290000976878218e-02,1,1,0,'127.0.0.1:9 cannot be reached: nothing listens on that port.','',1);
CREATE TABLE patients (
	patient_key INTEGER NOT NULL, 
	patient_id TEXT NOT NULL, 
	issuer_of_patient_id TEXT NOT NULL, 
	study_instance_uid TEXT NOT NULL, 
	patient_name TEXT, 
	patient_birth_date TEXT, 
	patient_birth_time TEXT, 
	patient_sex TEXT, 
	other_patient_ids TEXT, 
	other_patient_names TEXT, 
	ethnic_group TEXT, 
	patient_comments TEXT, 
	described_at TEXT NOT NULL, 
	described_by TEXT NOT NULL, 
	PRIMARY KEY (patient_key), 
	CONSTRAINT patients_identity UNIQUE (patient_id, issuer_of_patient_id, study_instance_uid)
);
INSERT INTO "patients" VALUES(1,'1CT1','','','CompressedSamples^CT1',NULL,NULL,'O',NULL,NULL,NULL,NULL,'2026-11-23T01:45:57.250620Z','18ea894b223e3cbf5865ede900000000');
INSERT INTO "patients" VALUES(2,'4MR1','','','CompressedSamples^MR1',NULL,NULL,'F',NULL,NULL,NULL,NULL,'2026-11-23T01:45:57.276788Z','18ea894b23cd85665865ede900000001');
CREATE TABLE peer_echoes (
	peer TEXT NOT NULL, 
	answered_at TEXT, 
	failed_at TEXT, 
	failure TEXT NOT NULL, 
	PRIMARY KEY (peer)
)
 WITHOUT ROWID

;
CREATE TABLE peers (
	peer_key INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	definition TEXT NOT NULL, 
	changed_at TEXT NOT NULL, 
	changed_by TEXT NOT NULL, 
	PRIMARY KEY (peer_key), 
	CONSTRAINT peers_name UNIQUE (name)
);
INSERT INTO "peers" VALUES(1,'OURSELF','{"name": "OURSELF", "ae_title": "KEEP", "addresses": [], "host": "127.0.0.1", "port": 9, "own_ae_title": "", "tls": false, "may_echo": true, "may_store": true, "may_request_commitment": true, "may_report_commitment": true, "report_on": "new", "connect_seconds": 10.0, "answer_seconds": 30.0, "manufacturer": "", "duplicates": null}','2026-11-23T01:45:58.976504Z','ann');
CREATE TABLE receipts (
	receipt_key INTEGER NOT NULL, 
	receipt_id TEXT NOT NULL, 
	version_key INTEGER NOT NULL, 
	outcome TEXT NOT NULL CONSTRAINT outcome_is_known CHECK (outcome IN ('stored', 'identical', 'conflict')), 
	received_at TEXT NOT NULL, 
	received_by TEXT NOT NULL, 
	calling_ae_title TEXT NOT NULL, 
	called_ae_title TEXT NOT NULL, 
	peer_address TEXT NOT NULL, 
	association_id TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	data_set_length INTEGER NOT NULL, 
	answer TEXT NOT NULL CONSTRAINT answer_is_known CHECK (answer IN ('known', 'unknown')), 
	verdicts TEXT, 
	PRIMARY KEY (receipt_key), 
	CONSTRAINT receipts_id UNIQUE (receipt_id), 
	FOREIGN KEY(version_key) REFERENCES versions (version_key)
);
INSERT INTO "receipts" VALUES(1,'18ea894b223e3cbf5865ede900000000',1,'stored','2026-11-23T01:45:57.250620Z','C-STORE','SCU1','KEEP','127.0.0.1','6cbd9c04-1','64d4dcc52d1897acb9ddcb6f7536d88ab0f776ac0f7225b12df40b0cb456972b',38732,'known',NULL);
INSERT INTO "receipts" VALUES(2,'18ea894b23cd85665865ede900000001',2,'stored','2026-11-23T01:45:57.276788Z','C-STORE','SCU1','KEEP','127.0.0.1','6cbd9c04-1','9279ecc0c16585a963ead7b6e9522bfc86eaf5f3f0af6d8e83828b900f79fbc9',9358,'known',NULL);
INSERT INTO "receipts" VALUES(3,'18ea894b2756c3295865ede900000002',1,'identical','2026-11-23T01:45:57.336113Z','C-STORE','SCU1','KEEP','127.0.0.1','6cbd9c04-2','64d4dcc52d1897acb9ddcb6f7536d88ab0f776ac0f7225b12df40b0cb456972b',38732,'known',NULL);
CREATE TABLE requests (
	request_key INTEGER NOT NULL, 
	association_id TEXT NOT NULL, 
	message_id INTEGER NOT NULL, 
	sop_class_uid TEXT NOT NULL, 
	sop_instance_uid TEXT NOT NULL, 
	transfer_syntax_uid TEXT NOT NULL, 
	requested_at TEXT NOT NULL, 
	status INTEGER, 
	error_comment TEXT NOT NULL, 
	data_set_length INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	outcome TEXT NOT NULL, 
	receipt_id TEXT NOT NULL, 
	seconds_network FLOAT NOT NULL, 
	seconds_disk FLOAT NOT NULL, 
	seconds_total FLOAT NOT NULL, 
	PRIMARY KEY (request_key)
);
INSERT INTO "requests" VALUES(1,'6cbd9c04-1',1,'1.2.840.10008.5.1.4.1.1.2','1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322','1.2.840.10008.1.2.1','2026-11-23T01:45:57.237536Z',0,'',38732,'64d4dcc52d1897acb9ddcb6f7536d88ab0f776ac0f7225b12df40b0cb456972b','kept','18ea894b223e3cbf5865ede900000000',1.29133199970965506508e-03,1.25508410001202719286e-02,3.08920499996929720509e-02);
INSERT INTO "requests" VALUES(2,'6cbd9c04-1',2,'1.2.840.10008.5.1.4.1.1.4','1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457','1.2.840.10008.1.2.1','2026-11-23T01:45:57.275084Z',0,'',9358,'9279ecc0c16585a963ead7b6e9522bfc86eaf5f3f0af6d8e83828b900f79fbc9','kept','18ea894b23cd85665865ede900000001',1.70379000337561592459e-04,5.7848739998007658869e-03,8.20954400023765629157e-03);
INSERT INTO "requests" VALUES(3,'6cbd9c04-2',1,'1.2.840.10008.5.1.4.1.1.2','1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322','1.2.840.10008.1.2.1','2026-11-23T01:45:57.335735Z',0,'',38732,'64d4dcc52d1897acb9ddcb6f7536d88ab0f776ac0f7225b12df40b0cb456972b','kept','18ea894b2756c3295865ede900000002',1.71430000136751914396e-04,0.000609035999787011,1.32320100010474561713e-03);
CREATE TABLE series (
	series_key INTEGER NOT NULL, 
	study_key INTEGER NOT NULL, 
	series_instance_uid TEXT NOT NULL, 
	modality TEXT, 
	series_number INTEGER, 
	series_description TEXT, 
	series_date TEXT, 
	series_time TEXT, 
	manufacturer TEXT, 
	institution_name TEXT, 
	station_name TEXT, 
	institutional_department_name TEXT, 
	performing_physician_name TEXT, 
	operators_name TEXT, 
	manufacturer_model_name TEXT, 
	body_part_examined TEXT, 
	protocol_name TEXT, 
	frame_of_reference_uid TEXT, 
	laterality TEXT, 
	performed_procedure_step_start_date TEXT, 
	performed_procedure_step_start_time TEXT, 
	performed_procedure_step_id TEXT, 
	performed_procedure_step_description TEXT, 
	described_at TEXT NOT NULL, 
	described_by TEXT NOT NULL, 
	PRIMARY KEY (series_key), 
	CONSTRAINT series_uid UNIQUE (series_instance_uid, study_key), 
	FOREIGN KEY(study_key) REFERENCES studies (study_key)
);
INSERT INTO "series" VALUES(1,1,'1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322','CT',1,NULL,'19970430','112749','GE MEDICAL SYSTEMS','JFK IMAGING CENTER','CT01_OC0',NULL,NULL,NULL,'RHAPSODE',NULL,NULL,'1.3.6.1.4.1.5962.1.4.1.1.20040119072730.12322',NULL,NULL,NULL,NULL,NULL,'2026-11-23T01:45:57.250620Z','18ea894b223e3cbf5865ede900000000');
INSERT INTO "series" VALUES(2,2,'1.3.6.1.4.1.5962.1.3.4.1.20040826185059.5457','MR',1,NULL,NULL,NULL,'TOSHIBA_MEC','TOSHIBA','000000000',NULL,NULL,'----','MRT50H1',NULL,NULL,'1.3.6.1.4.1.5962.1.4.4.1.20040826185059.5457',NULL,NULL,NULL,NULL,NULL,'2026-11-23T01:45:57.276788Z','18ea894b23cd85665865ede900000001');
CREATE TABLE studies (
	study_key INTEGER NOT NULL, 
	study_instance_uid TEXT NOT NULL, 
	patient_key INTEGER, 
	study_date TEXT, 
	study_time TEXT, 
	accession_number TEXT, 
	study_id TEXT, 
	study_description TEXT, 
	referring_physician_name TEXT, 
	name_of_physicians_reading_study TEXT, 
	admitting_diagnoses_description TEXT, 
	patient_age TEXT, 
	patient_size TEXT, 
	patient_weight TEXT, 
	occupation TEXT, 
	additional_patient_history TEXT, 
	described_at TEXT NOT NULL, 
	described_by TEXT NOT NULL, 
	PRIMARY KEY (study_key), 
	CONSTRAINT studies_uid UNIQUE (study_instance_uid), 
	FOREIGN KEY(patient_key) REFERENCES patients (patient_key)
);
INSERT INTO "studies" VALUES(1,'1.3.6.1.4.1.5962.1.2.1.20040119072730.12322',1,'20040119','072730',NULL,'1CT1','e+1',NULL,NULL,NULL,'000Y',NULL,'0.000000',NULL,NULL,'2026-11-23T01:45:57.250620Z','18ea894b223e3cbf5865ede900000000');
INSERT INTO "studies" VALUES(2,'1.3.6.1.4.1.5962.1.2.4.20040826185059.5457',2,'20040826','185059',NULL,'4MR1',NULL,NULL,'----',NULL,NULL,NULL,'80.0000',NULL,NULL,'2026-11-23T01:45:57.276788Z','18ea894b23cd85665865ede900000001');
CREATE TABLE study_events (
	seq INTEGER NOT NULL, 
	study_key INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	evidence TEXT NOT NULL, 
	PRIMARY KEY (seq), 
	FOREIGN KEY(seq) REFERENCES changes (seq), 
	FOREIGN KEY(study_key) REFERENCES studies (study_key)
);
INSERT INTO "study_events" VALUES(4,1,1,'{"began_at": "2026-11-23T01:45:57.344903Z"}');
INSERT INTO "study_events" VALUES(5,2,1,'{"began_at": "2026-11-23T01:45:57.344903Z"}');
CREATE TABLE study_watches (
	study_key INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	revision_began_at TEXT NOT NULL, 
	last_arrival_at TEXT NOT NULL, 
	last_version_key INTEGER NOT NULL, 
	arrivals INTEGER NOT NULL, 
	quiet_due_at TEXT, 
	PRIMARY KEY (study_key), 
	FOREIGN KEY(study_key) REFERENCES studies (study_key)
);
INSERT INTO "study_watches" VALUES(1,1,'2026-11-23T01:45:57.344903Z','2026-11-23T01:45:57.344903Z',1,1,'2026-11-23T01:46:58.131772Z');
INSERT INTO "study_watches" VALUES(2,1,'2026-11-23T01:45:57.344903Z','2026-11-23T01:45:57.344903Z',2,1,'2026-11-23T01:46:58.131772Z');
CREATE TABLE versions (
	version_key INTEGER NOT NULL, 
	instance_key INTEGER NOT NULL, 
	series_key INTEGER, 
	sop_class_uid TEXT NOT NULL, 
	transfer_syntax_uid TEXT NOT NULL, 
	path TEXT NOT NULL, 
	file_size INTEGER NOT NULL, 
	state TEXT NOT NULL CONSTRAINT state_is_known CHECK (state IN ('kept', 'superseded', 'removing', 'removed', 'damaged')), 
	"conflict" INTEGER NOT NULL, 
	state_since TEXT, 
	removal_due_at TEXT, 
	instance_number INTEGER, 
	number_of_frames INTEGER, 
	rows INTEGER, 
	columns INTEGER, 
	bits_allocated INTEGER, 
	specific_character_set TEXT, 
	image_type TEXT, 
	instance_creation_date TEXT, 
	instance_creation_time TEXT, 
	acquisition_date TEXT, 
	content_date TEXT, 
	acquisition_date_time TEXT, 
	acquisition_time TEXT, 
	content_time TEXT, 
	timezone_offset_from_utc TEXT, 
	acquisition_number INTEGER, 
	observation_date_time TEXT, 
	completion_flag TEXT, 
	verification_flag TEXT, 
	document_title TEXT, 
	mime_type_of_encapsulated_document TEXT, 
	content_label TEXT, 
	content_description TEXT, 
	presentation_creation_date TEXT, 
	presentation_creation_time TEXT, 
	content_creator_name TEXT, 
	structure_set_label TEXT, 
	structure_set_date TEXT, 
	structure_set_time TEXT, 
	rt_plan_label TEXT, 
	rt_plan_date TEXT, 
	rt_plan_time TEXT, 
	PRIMARY KEY (version_key), 
	FOREIGN KEY(instance_key) REFERENCES instances (instance_key), 
	FOREIGN KEY(series_key) REFERENCES series (series_key)
);
INSERT INTO "versions" VALUES(1,1,1,'1.2.840.10008.5.1.4.1.1.2','1.2.840.10008.1.2.1','objects/1.3.6.1.4.1.5962.1.2.1.20040119072730.12322/1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322/1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322_64d4dcc52d1897acb9ddcb6f7536d88a.dcm',40206,'kept',0,NULL,NULL,1,NULL,128,128,16,'ISO_IR 100','ORIGINAL\PRIMARY\AXIAL','20040119','072731','19970430','19970430',NULL,'112936','113008','-0500',2,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "versions" VALUES(2,2,2,'1.2.840.10008.5.1.4.1.1.4','1.2.840.10008.1.2.1','objects/1.3.6.1.4.1.5962.1.2.4.20040826185059.5457/1.3.6.1.4.1.5962.1.3.4.1.20040826185059.5457/1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457_9279ecc0c16585a963ead7b6e9522bfc.dcm',10830,'kept',0,NULL,NULL,1,NULL,64,64,16,NULL,'DERIVED\SECONDARY\OTHER','20040826','185434',NULL,NULL,NULL,NULL,NULL,'-0400',0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE INDEX studies_of_patient ON studies (patient_key);
CREATE INDEX series_of_study ON series (study_key);
CREATE INDEX instances_uid_hash ON instances (uid_hash);
CREATE INDEX versions_in_conflict ON versions (instance_key) WHERE conflict = 1;
CREATE INDEX versions_leaving ON versions (removal_due_at) WHERE state IN ('superseded', 'removing');
CREATE INDEX versions_damaged ON versions (version_key) WHERE state = 'damaged';
CREATE INDEX versions_of_instance ON versions (instance_key);
CREATE INDEX versions_of_series ON versions (series_key, instance_key);
CREATE UNIQUE INDEX versions_path ON versions (path) WHERE state IN ('kept', 'superseded', 'removing');
CREATE INDEX receipts_of_version ON receipts (version_key);
CREATE INDEX receipts_received ON receipts (received_at);
CREATE UNIQUE INDEX changes_received ON changes (receipt_key) WHERE kind = 'received';
CREATE INDEX associations_open ON associations (receiver) WHERE closed_at IS NULL;
CREATE INDEX requests_of_association ON requests (association_id);
CREATE INDEX jobs_waiting ON jobs (lane, due_at, kind, priority, state) WHERE state IN ('pending', 'retry');
CREATE INDEX jobs_running ON jobs (lane) WHERE state = 'running';
CREATE INDEX jobs_wished ON jobs (job_key) WHERE wish <> '';
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_of_kind ON jobs (kind, job_key);
CREATE INDEX jobs_of_peer ON jobs (peer, job_key) WHERE peer <> '';
CREATE INDEX jobs_of_subject ON jobs (subject) WHERE subject <> '';
CREATE UNIQUE INDEX commitments_transaction ON commitments (role, transaction_uid) WHERE duplicate_of IS NULL;
CREATE INDEX commitments_open ON commitments (role, commitment_key) WHERE reported_at IS NULL;
CREATE INDEX commitments_of_peer ON commitments (peer, commitment_key);
CREATE INDEX commitment_instances_uid ON commitment_instances (uid_hash);
CREATE INDEX commitment_reports_of ON commitment_reports (commitment_key);
CREATE INDEX study_watches_due ON study_watches (quiet_due_at) WHERE quiet_due_at IS NOT NULL;
CREATE INDEX study_events_of_study ON study_events (study_key, seq);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',4);
INSERT INTO "sqlite_sequence" VALUES('changes',6);
INSERT INTO "sqlite_sequence" VALUES('commitments',3);
COMMIT;
