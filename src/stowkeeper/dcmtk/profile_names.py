"""Symbolic names of SOP classes and transfer syntaxes, as DCMTK's profile files and log lines use them.

A name is matched exactly, with case. Names that DCMTK has changed are known in both forms, so that a profile file of an
older release loads. What can be neither an abstract nor a transfer syntax (frames of reference, directory attributes,
well-known instances) has a name there too and none here: in a profile it is a mistake.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from stowkeeper.dcmtk.storage_class_table import STORAGE_CLASSES

_TRANSFER_SYNTAXES = """\
1.2.840.10008.1.2 LittleEndianImplicit
1.2.840.10008.1.2.1 LittleEndianExplicit
1.2.840.10008.1.2.1.98 EncapsulatedUncompressedLittleEndianExplicit
1.2.840.10008.1.2.1.99 DeflatedLittleEndianExplicit
1.2.840.10008.1.2.2 BigEndianExplicit
1.2.840.10008.1.2.4.50 JPEGBaseline
1.2.840.10008.1.2.4.51 JPEGExtended:Process2+4
1.2.840.10008.1.2.4.52 JPEGExtended:Process3+5
1.2.840.10008.1.2.4.53 JPEGSpectralSelection:Non-hierarchical:Process6+8
1.2.840.10008.1.2.4.54 JPEGSpectralSelection:Non-hierarchical:Process7+9
1.2.840.10008.1.2.4.55 JPEGFullProgression:Non-hierarchical:Process10+12
1.2.840.10008.1.2.4.56 JPEGFullProgression:Non-hierarchical:Process11+13
1.2.840.10008.1.2.4.57 JPEGLossless:Non-hierarchical:Process14
1.2.840.10008.1.2.4.58 JPEGLossless:Non-hierarchical:Process15
1.2.840.10008.1.2.4.59 JPEGExtended:Hierarchical:Process16+18
1.2.840.10008.1.2.4.60 JPEGExtended:Hierarchical:Process17+19
1.2.840.10008.1.2.4.61 JPEGSpectralSelection:Hierarchical:Process20+22
1.2.840.10008.1.2.4.62 JPEGSpectralSelection:Hierarchical:Process21+23
1.2.840.10008.1.2.4.63 JPEGFullProgression:Hierarchical:Process24+26
1.2.840.10008.1.2.4.64 JPEGFullProgression:Hierarchical:Process25+27
1.2.840.10008.1.2.4.65 JPEGLossless:Hierarchical:Process28
1.2.840.10008.1.2.4.66 JPEGLossless:Hierarchical:Process29
1.2.840.10008.1.2.4.70 JPEGLossless:Non-hierarchical-1stOrderPrediction
1.2.840.10008.1.2.4.80 JPEGLSLossless
1.2.840.10008.1.2.4.81 JPEGLSLossy
1.2.840.10008.1.2.4.90 JPEG2000LosslessOnly
1.2.840.10008.1.2.4.91 JPEG2000
1.2.840.10008.1.2.4.92 JPEG2000MulticomponentLosslessOnly
1.2.840.10008.1.2.4.93 JPEG2000Multicomponent
1.2.840.10008.1.2.4.94 JPIPReferenced
1.2.840.10008.1.2.4.95 JPIPReferencedDeflate
1.2.840.10008.1.2.4.100 MPEG2MainProfile@MainLevel
1.2.840.10008.1.2.4.100.1 FragmentableMPEG2MainProfile/MainLevel
1.2.840.10008.1.2.4.101 MPEG2MainProfile@HighLevel
1.2.840.10008.1.2.4.101.1 FragmentableMPEG2MainProfile/HighLevel
1.2.840.10008.1.2.4.102 MPEG4HighProfile/Level4.1
1.2.840.10008.1.2.4.102.1 FragmentableMPEG4HighProfile/Level4.1
1.2.840.10008.1.2.4.103 MPEG4BDcompatibleHighProfile/Level4.1
1.2.840.10008.1.2.4.103.1 FragmentableMPEG4BDcompatibleHighProfile/Level4.1
1.2.840.10008.1.2.4.104 MPEG4HighProfile/Level4.2For2DVideo
1.2.840.10008.1.2.4.104.1 FragmentableMPEG4HighProfile/Level4.2For2DVideo
1.2.840.10008.1.2.4.105 MPEG4HighProfile/Level4.2For3DVideo
1.2.840.10008.1.2.4.105.1 FragmentableMPEG4HighProfile/Level4.2For3DVideo
1.2.840.10008.1.2.4.106 MPEG4StereoHighProfile/Level4.2
1.2.840.10008.1.2.4.106.1 FragmentableMPEG4StereoHighProfile/Level4.2
1.2.840.10008.1.2.4.107 HEVCMainProfile/Level5.1
1.2.840.10008.1.2.4.108 HEVCMain10Profile/Level5.1
1.2.840.10008.1.2.4.110 JPEGXLLossless
1.2.840.10008.1.2.4.111 JPEGXLJPEGRecompression
1.2.840.10008.1.2.4.112 JPEGXL
1.2.840.10008.1.2.4.201 HighThroughputJPEG2000ImageCompressionLosslessOnly
1.2.840.10008.1.2.4.202 HighThroughputJPEG2000withRPCLOptionsImageCompressionLosslessOnly
1.2.840.10008.1.2.4.203 HighThroughputJPEG2000ImageCompression
1.2.840.10008.1.2.4.204 JPIPHTJ2KReferenced
1.2.840.10008.1.2.4.205 JPIPHTJ2KReferencedDeflate
1.2.840.10008.1.2.5 RLELossless
1.2.840.10008.1.2.6.1 RETIRED_RFC2557MIMEEncapsulation
1.2.840.10008.1.2.6.1 RFC2557MIMEEncapsulation
1.2.840.10008.1.2.6.2 RETIRED_XMLEncoding
1.2.840.10008.1.2.6.2 XMLEncoding
1.2.840.10008.1.2.7.1 SMPTEST2110-20:UncompressedProgressiveActiveVideo
1.2.840.10008.1.2.7.2 SMPTEST2110-20:UncompressedInterlacedActiveVideo
1.2.840.10008.1.2.7.3 SMPTEST2110-30:PCMDigitalAudio
1.2.840.10008.1.2.8.1 DeflatedImageFrameCompression
1.2.840.113619.5.2 PrivateGELittleEndianImplicitWithBigEndianPixelData
"""
"""The newest name of a syntax comes first."""

_OTHER_SOP_CLASSES = """\
1.2.840.10008.1.1 VerificationSOPClass
1.2.840.10008.1.3.10 MediaStorageDirectoryStorage
1.2.840.10008.1.9 RETIRED_BasicStudyContentNotificationSOPClass
1.2.840.10008.1.20.1 StorageCommitmentPushModelSOPClass
1.2.840.10008.1.20.2 RETIRED_StorageCommitmentPullModelSOPClass
1.2.840.10008.1.40 ProceduralEventLoggingSOPClass
1.2.840.10008.1.42 SubstanceAdministrationLoggingSOPClass
1.2.840.10008.3.1.2.1.1 RETIRED_DetachedPatientManagementSOPClass
1.2.840.10008.3.1.2.1.4 RETIRED_DetachedPatientManagementMetaSOPClass
1.2.840.10008.3.1.2.2.1 RETIRED_DetachedVisitManagementSOPClass
1.2.840.10008.3.1.2.3.1 RETIRED_DetachedStudyManagementSOPClass
1.2.840.10008.3.1.2.3.2 RETIRED_StudyComponentManagementSOPClass
1.2.840.10008.3.1.2.3.3 ModalityPerformedProcedureStepSOPClass
1.2.840.10008.3.1.2.3.4 ModalityPerformedProcedureStepRetrieveSOPClass
1.2.840.10008.3.1.2.3.5 ModalityPerformedProcedureStepNotificationSOPClass
1.2.840.10008.3.1.2.5.1 RETIRED_DetachedResultsManagementSOPClass
1.2.840.10008.3.1.2.5.4 RETIRED_DetachedResultsManagementMetaSOPClass
1.2.840.10008.3.1.2.5.5 RETIRED_DetachedStudyManagementMetaSOPClass
1.2.840.10008.3.1.2.6.1 RETIRED_DetachedInterpretationManagementSOPClass
1.2.840.10008.5.1.1.1 BasicFilmSessionSOPClass
1.2.840.10008.5.1.1.2 BasicFilmBoxSOPClass
1.2.840.10008.5.1.1.4 BasicGrayscaleImageBoxSOPClass
1.2.840.10008.5.1.1.4.1 BasicColorImageBoxSOPClass
1.2.840.10008.5.1.1.4.2 RETIRED_ReferencedImageBoxSOPClass
1.2.840.10008.5.1.1.9 BasicGrayscalePrintManagementMetaSOPClass
1.2.840.10008.5.1.1.9.1 RETIRED_ReferencedGrayscalePrintManagementMetaSOPClass
1.2.840.10008.5.1.1.14 PrintJobSOPClass
1.2.840.10008.5.1.1.15 BasicAnnotationBoxSOPClass
1.2.840.10008.5.1.1.16 PrinterSOPClass
1.2.840.10008.5.1.1.16.376 PrinterConfigurationRetrievalSOPClass
1.2.840.10008.5.1.1.18 BasicColorPrintManagementMetaSOPClass
1.2.840.10008.5.1.1.18.1 RETIRED_ReferencedColorPrintManagementMetaSOPClass
1.2.840.10008.5.1.1.22 VOILUTBoxSOPClass
1.2.840.10008.5.1.1.23 PresentationLUTSOPClass
1.2.840.10008.5.1.1.24 RETIRED_ImageOverlayBoxSOPClass
1.2.840.10008.5.1.1.24.1 RETIRED_BasicPrintImageOverlayBoxSOPClass
1.2.840.10008.5.1.1.26 RETIRED_PrintQueueManagementSOPClass
1.2.840.10008.5.1.1.31 RETIRED_PullPrintRequestSOPClass
1.2.840.10008.5.1.1.32 RETIRED_PullStoredPrintManagementMetaSOPClass
1.2.840.10008.5.1.1.33 MediaCreationManagementSOPClass
1.2.840.10008.5.1.1.40 DisplaySystemSOPClass
1.2.840.10008.5.1.4.1.1.200.4 FINDProtocolApprovalInformationModel
1.2.840.10008.5.1.4.1.1.200.5 MOVEProtocolApprovalInformationModel
1.2.840.10008.5.1.4.1.1.200.6 GETProtocolApprovalInformationModel
1.2.840.10008.5.1.4.1.1.201.2 FINDInventory
1.2.840.10008.5.1.4.1.1.201.3 MOVEInventory
1.2.840.10008.5.1.4.1.1.201.4 GETInventory
1.2.840.10008.5.1.4.1.1.201.5 InventoryCreation
1.2.840.10008.5.1.4.1.1.201.6 RepositoryQuery
1.2.840.10008.5.1.4.1.2.1.1 FINDPatientRootQueryRetrieveInformationModel
1.2.840.10008.5.1.4.1.2.1.2 MOVEPatientRootQueryRetrieveInformationModel
1.2.840.10008.5.1.4.1.2.1.3 GETPatientRootQueryRetrieveInformationModel
1.2.840.10008.5.1.4.1.2.2.1 FINDStudyRootQueryRetrieveInformationModel
1.2.840.10008.5.1.4.1.2.2.2 MOVEStudyRootQueryRetrieveInformationModel
1.2.840.10008.5.1.4.1.2.2.3 GETStudyRootQueryRetrieveInformationModel
1.2.840.10008.5.1.4.1.2.3.1 RETIRED_FINDPatientStudyOnlyQueryRetrieveInformationModel
1.2.840.10008.5.1.4.1.2.3.2 RETIRED_MOVEPatientStudyOnlyQueryRetrieveInformationModel
1.2.840.10008.5.1.4.1.2.3.3 RETIRED_GETPatientStudyOnlyQueryRetrieveInformationModel
1.2.840.10008.5.1.4.1.2.4.2 MOVECompositeInstanceRootRetrieve
1.2.840.10008.5.1.4.1.2.4.3 GETCompositeInstanceRootRetrieve
1.2.840.10008.5.1.4.1.2.5.3 GETCompositeInstanceRetrieveWithoutBulkData
1.2.840.10008.5.1.4.20.1 FINDDefinedProcedureProtocolInformationModel
1.2.840.10008.5.1.4.20.2 MOVEDefinedProcedureProtocolInformationModel
1.2.840.10008.5.1.4.20.3 GETDefinedProcedureProtocolInformationModel
1.2.840.10008.5.1.4.31 FINDModalityWorklistInformationModel
1.2.840.10008.5.1.4.32 RETIRED_GeneralPurposeWorklistManagementMetaSOPClass
1.2.840.10008.5.1.4.32.1 RETIRED_FINDGeneralPurposeWorklistInformationModel
1.2.840.10008.5.1.4.32.2 RETIRED_GeneralPurposeScheduledProcedureStepSOPClass
1.2.840.10008.5.1.4.32.3 RETIRED_GeneralPurposePerformedProcedureStepSOPClass
1.2.840.10008.5.1.4.33 InstanceAvailabilityNotificationSOPClass
1.2.840.10008.5.1.4.34.2 DRAFT_RTConventionalMachineVerification
1.2.840.10008.5.1.4.34.3 DRAFT_RTIonMachineVerification
1.2.840.10008.5.1.4.34.4.1 DRAFT_UnifiedProcedureStepPushSOPClass
1.2.840.10008.5.1.4.34.4.2 DRAFT_UnifiedProcedureStepWatchSOPClass
1.2.840.10008.5.1.4.34.4.3 DRAFT_UnifiedProcedureStepPullSOPClass
1.2.840.10008.5.1.4.34.4.4 DRAFT_UnifiedProcedureStepEventSOPClass
1.2.840.10008.5.1.4.34.6.1 UnifiedProcedureStepPushSOPClass
1.2.840.10008.5.1.4.34.6.2 UnifiedProcedureStepWatchSOPClass
1.2.840.10008.5.1.4.34.6.3 UnifiedProcedureStepPullSOPClass
1.2.840.10008.5.1.4.34.6.4 UnifiedProcedureStepEventSOPClass
1.2.840.10008.5.1.4.34.6.5 UnifiedProcedureStepQuerySOPClass
1.2.840.10008.5.1.4.34.8 RTConventionalMachineVerification
1.2.840.10008.5.1.4.34.9 RTIonMachineVerification
1.2.840.10008.5.1.4.37.1 GeneralRelevantPatientInformationQuery
1.2.840.10008.5.1.4.37.2 BreastImagingRelevantPatientInformationQuery
1.2.840.10008.5.1.4.37.3 CardiacRelevantPatientInformationQuery
1.2.840.10008.5.1.4.38.2 FINDHangingProtocolInformationModel
1.2.840.10008.5.1.4.38.3 MOVEHangingProtocolInformationModel
1.2.840.10008.5.1.4.38.4 GETHangingProtocolInformationModel
1.2.840.10008.5.1.4.39.2 FINDColorPaletteInformationModel
1.2.840.10008.5.1.4.39.3 MOVEColorPaletteInformationModel
1.2.840.10008.5.1.4.39.4 GETColorPaletteInformationModel
1.2.840.10008.5.1.4.41 ProductCharacteristicsQuerySOPClass
1.2.840.10008.5.1.4.42 SubstanceApprovalQuerySOPClass
1.2.840.10008.5.1.4.43.2 FINDGenericImplantTemplateInformationModel
1.2.840.10008.5.1.4.43.3 MOVEGenericImplantTemplateInformationModel
1.2.840.10008.5.1.4.43.4 GETGenericImplantTemplateInformationModel
1.2.840.10008.5.1.4.44.2 FINDImplantAssemblyTemplateInformationModel
1.2.840.10008.5.1.4.44.3 MOVEImplantAssemblyTemplateInformationModel
1.2.840.10008.5.1.4.44.4 GETImplantAssemblyTemplateInformationModel
1.2.840.10008.5.1.4.45.2 FINDImplantTemplateGroupInformationModel
1.2.840.10008.5.1.4.45.3 MOVEImplantTemplateGroupInformationModel
1.2.840.10008.5.1.4.45.4 GETImplantTemplateGroupInformationModel
1.2.840.10008.10.1 VideoEndoscopicImageRealTimeCommunication
1.2.840.10008.10.2 VideoPhotographicImageRealTimeCommunication
1.2.840.10008.10.3 AudioWaveformRealTimeCommunication
1.2.840.10008.10.4 RenditionSelectionDocumentRealTimeCommunication
"""

_FORMER_NAMES = """\
1.2.840.10008.5.1.4.1.1.88.70 ImplantationPlanSRDocumentStorage
"""
"""What DCMTK called a class up to release 3.6.7."""


def _read_names() -> dict[str, str]:
    names = {}
    for row in STORAGE_CLASSES.splitlines():
        uid, _, name = row.split()
        names[name] = uid
    for text in (_TRANSFER_SYNTAXES, _OTHER_SOP_CLASSES, _FORMER_NAMES):
        for row in text.splitlines():
            uid, name = row.split()
            names[name] = uid
    return names


UIDS_BY_NAME: Final[Mapping[str, str]] = MappingProxyType(_read_names())
"""The UID that a symbolic name stands for."""

NAMES_BY_UID: Final[Mapping[str, str]] = MappingProxyType(
    {uid: name for name, uid in reversed(tuple(UIDS_BY_NAME.items()))}
)
"""The symbolic name of a UID; of several the newest."""


def uid_from_profile(text: str) -> str | None:
    """Return the UID that a value of a profile file means, None when it means none.

    Digits and dots are a UID as they stand, whether or not one could be registered; anything else has to be a
    symbolic name, with or without the equals sign that DCMTK's tools print before it.
    """
    if text and not text.strip("0123456789."):
        return text
    return UIDS_BY_NAME.get(text.removeprefix("="))
