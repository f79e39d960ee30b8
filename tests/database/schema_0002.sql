-- A catalog as a version with schema 0002 left it: two instances of pydicom's test files, one of them sent twice.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE archive (
	archive_key INTEGER NOT NULL CONSTRAINT there_is_one CHECK (archive_key = 1), 
	archive_id TEXT, 
	created_at TEXT NOT NULL, 
	created_by TEXT NOT NULL, 
	migrated_at TEXT NOT NULL, 
	migrated_by TEXT NOT NULL, 
	PRIMARY KEY (archive_key)
);
INSERT INTO "archive" VALUES(1,'1813d1d2-18e2-485f-aaf8-830a159c5c1c','2026-11-23T01:45:50.322195Z','0.1.0','2026-11-23T01:45:50.322195Z','0.1.0');
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
INSERT INTO "associations" VALUES(1,'10c7a0e1-1','989-707abe3c','2026-11-23T01:45:50.587204Z','2026-11-23T01:45:50.602886Z','SCU1','KEEP','127.0.0.1','1.2.276.0.7230010.3.0.3.6.7','OFFIS_DCMTK_367',NULL,NULL,NULL,4,0,'[[1,"1.2.840.10008.5.1.4.1.1.2",0,"1.2.840.10008.1.2.1"],[3,"1.2.840.10008.5.1.4.1.1.2",0,"1.2.840.10008.1.2.2"],[5,"1.2.840.10008.5.1.4.1.1.4",0,"1.2.840.10008.1.2.1"],[7,"1.2.840.10008.5.1.4.1.1.4",0,"1.2.840.10008.1.2.2"]]',2,48873,'released','',NULL,NULL);
INSERT INTO "associations" VALUES(2,'10c7a0e1-2','989-707abe3c','2026-11-23T01:45:50.706928Z','2026-11-23T01:45:50.730424Z','SCU1','KEEP','127.0.0.1','1.2.276.0.7230010.3.0.3.6.7','OFFIS_DCMTK_367',NULL,NULL,NULL,2,0,'[[1,"1.2.840.10008.5.1.4.1.1.2",0,"1.2.840.10008.1.2.1"],[3,"1.2.840.10008.5.1.4.1.1.2",0,"1.2.840.10008.1.2.2"]]',1,39210,'released','',NULL,NULL);
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
INSERT INTO "changes" VALUES(1,'2026-11-23T01:45:50.647523Z','received',1,1,NULL,NULL);
INSERT INTO "changes" VALUES(2,'2026-11-23T01:45:50.647523Z','received',2,2,NULL,NULL);
INSERT INTO "changes" VALUES(3,'2026-11-23T01:45:50.757367Z','received',3,1,NULL,NULL);
CREATE TABLE holds (
	version_key INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	held_since TEXT NOT NULL, 
	PRIMARY KEY (version_key, reason), 
	FOREIGN KEY(version_key) REFERENCES versions (version_key)
)
 WITHOUT ROWID

;
CREATE TABLE instances (
	instance_key INTEGER NOT NULL, 
	sop_instance_uid TEXT NOT NULL, 
	current_version_key INTEGER, 
	uid_hash INTEGER NOT NULL, 
	PRIMARY KEY (instance_key)
);
INSERT INTO "instances" VALUES(1,'1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322',1,264133326194014);
INSERT INTO "instances" VALUES(2,'1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457',2,263718288869833);
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
INSERT INTO "patients" VALUES(1,'1CT1','','','CompressedSamples^CT1',NULL,NULL,'O',NULL,NULL,NULL,NULL,'2026-11-23T01:45:50.596435Z','18ea8949959f6e5750cf5fce00000000');
INSERT INTO "patients" VALUES(2,'4MR1','','','CompressedSamples^MR1',NULL,NULL,'F',NULL,NULL,NULL,NULL,'2026-11-23T01:45:50.599546Z','18ea894995cee7a050cf5fce00000001');
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
INSERT INTO "receipts" VALUES(1,'18ea8949959f6e5750cf5fce00000000',1,'stored','2026-11-23T01:45:50.596435Z','C-STORE','SCU1','KEEP','127.0.0.1','10c7a0e1-1','64d4dcc52d1897acb9ddcb6f7536d88ab0f776ac0f7225b12df40b0cb456972b',38732,'known',NULL);
INSERT INTO "receipts" VALUES(2,'18ea894995cee7a050cf5fce00000001',2,'stored','2026-11-23T01:45:50.599546Z','C-STORE','SCU1','KEEP','127.0.0.1','10c7a0e1-1','9279ecc0c16585a963ead7b6e9522bfc86eaf5f3f0af6d8e83828b900f79fbc9',9358,'known',NULL);
INSERT INTO "receipts" VALUES(3,'18ea89499cce7b9750cf5fce00000002',1,'identical','2026-11-23T01:45:50.716959Z','C-STORE','SCU1','KEEP','127.0.0.1','10c7a0e1-2','64d4dcc52d1897acb9ddcb6f7536d88ab0f776ac0f7225b12df40b0cb456972b',38732,'known',NULL);
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
INSERT INTO "requests" VALUES(1,'10c7a0e1-1',1,'1.2.840.10008.5.1.4.1.1.2','1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322','1.2.840.10008.1.2.1','2026-11-23T01:45:50.592539Z',0,'',38732,'64d4dcc52d1897acb9ddcb6f7536d88ab0f776ac0f7225b12df40b0cb456972b','kept','18ea8949959f6e5750cf5fce00000000',0.000378075999833527,6.88776000515645137056e-04,6.21555899988379678688e-03);
INSERT INTO "requests" VALUES(2,'10c7a0e1-1',2,'1.2.840.10008.5.1.4.1.1.4','1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457','1.2.840.10008.1.2.1','2026-11-23T01:45:50.599023Z',0,'',9358,'9279ecc0c16585a963ead7b6e9522bfc86eaf5f3f0af6d8e83828b900f79fbc9','kept','18ea894995cee7a050cf5fce00000001',3.19236000450473511591e-04,8.86555999841220909729e-04,1.77584600032787420786e-03);
INSERT INTO "requests" VALUES(3,'10c7a0e1-2',1,'1.2.840.10008.5.1.4.1.1.2','1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322','1.2.840.10008.1.2.1','2026-11-23T01:45:50.716375Z',0,'',38732,'64d4dcc52d1897acb9ddcb6f7536d88ab0f776ac0f7225b12df40b0cb456972b','kept','18ea89499cce7b9750cf5fce00000002',1.50652000229456461966e-04,5.79397100045753177255e-03,7.2683150001466856338e-03);
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
INSERT INTO "series" VALUES(1,1,'1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322','CT',1,NULL,'19970430','112749','GE MEDICAL SYSTEMS','JFK IMAGING CENTER','CT01_OC0',NULL,NULL,NULL,'RHAPSODE',NULL,NULL,'1.3.6.1.4.1.5962.1.4.1.1.20040119072730.12322',NULL,NULL,NULL,NULL,NULL,'2026-11-23T01:45:50.596435Z','18ea8949959f6e5750cf5fce00000000');
INSERT INTO "series" VALUES(2,2,'1.3.6.1.4.1.5962.1.3.4.1.20040826185059.5457','MR',1,NULL,NULL,NULL,'TOSHIBA_MEC','TOSHIBA','000000000',NULL,NULL,'----','MRT50H1',NULL,NULL,'1.3.6.1.4.1.5962.1.4.4.1.20040826185059.5457',NULL,NULL,NULL,NULL,NULL,'2026-11-23T01:45:50.599546Z','18ea894995cee7a050cf5fce00000001');
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
INSERT INTO "studies" VALUES(1,'1.3.6.1.4.1.5962.1.2.1.20040119072730.12322',1,'20040119','072730',NULL,'1CT1','e+1',NULL,NULL,NULL,'000Y',NULL,'0.000000',NULL,NULL,'2026-11-23T01:45:50.596435Z','18ea8949959f6e5750cf5fce00000000');
INSERT INTO "studies" VALUES(2,'1.3.6.1.4.1.5962.1.2.4.20040826185059.5457',2,'20040826','185059',NULL,'4MR1',NULL,NULL,'----',NULL,NULL,NULL,'80.0000',NULL,NULL,'2026-11-23T01:45:50.599546Z','18ea894995cee7a050cf5fce00000001');
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
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('changes',3);
COMMIT;
