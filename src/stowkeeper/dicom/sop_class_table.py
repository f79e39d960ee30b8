"""The SOP classes that are known by name, as pure data: one class a line, its UID, keyword and name.

The standard's own are those of PS3.6 Table A-1. A section is one kind and one origin, see `sop_classes`;
within it the order is that of the UIDs' numbers. The file is long because the list is: there is nothing to
understand in it but its rows.
"""

STANDARD_STORAGE = """\
1.2.840.10008.5.1.4.1.1.1 ComputedRadiographyImageStorage Computed Radiography Image Storage
1.2.840.10008.5.1.4.1.1.1.1 DigitalXRayImageStorageForPresentation Digital X-Ray Image Storage - For Presentation
1.2.840.10008.5.1.4.1.1.1.1.1 DigitalXRayImageStorageForProcessing Digital X-Ray Image Storage - For Processing
1.2.840.10008.5.1.4.1.1.1.2 DigitalMammographyXRayImageStorageForPresentation Digital Mammography X-Ray Image Storage - For Presentation
1.2.840.10008.5.1.4.1.1.1.2.1 DigitalMammographyXRayImageStorageForProcessing Digital Mammography X-Ray Image Storage - For Processing
1.2.840.10008.5.1.4.1.1.1.3 DigitalIntraOralXRayImageStorageForPresentation Digital Intra-Oral X-Ray Image Storage - For Presentation
1.2.840.10008.5.1.4.1.1.1.3.1 DigitalIntraOralXRayImageStorageForProcessing Digital Intra-Oral X-Ray Image Storage - For Processing
1.2.840.10008.5.1.4.1.1.2 CTImageStorage CT Image Storage
1.2.840.10008.5.1.4.1.1.2.1 EnhancedCTImageStorage Enhanced CT Image Storage
1.2.840.10008.5.1.4.1.1.2.2 LegacyConvertedEnhancedCTImageStorage Legacy Converted Enhanced CT Image Storage
1.2.840.10008.5.1.4.1.1.3.1 UltrasoundMultiFrameImageStorage Ultrasound Multi-frame Image Storage
1.2.840.10008.5.1.4.1.1.4 MRImageStorage MR Image Storage
1.2.840.10008.5.1.4.1.1.4.1 EnhancedMRImageStorage Enhanced MR Image Storage
1.2.840.10008.5.1.4.1.1.4.2 MRSpectroscopyStorage MR Spectroscopy Storage
1.2.840.10008.5.1.4.1.1.4.3 EnhancedMRColorImageStorage Enhanced MR Color Image Storage
1.2.840.10008.5.1.4.1.1.4.4 LegacyConvertedEnhancedMRImageStorage Legacy Converted Enhanced MR Image Storage
1.2.840.10008.5.1.4.1.1.6.1 UltrasoundImageStorage Ultrasound Image Storage
1.2.840.10008.5.1.4.1.1.6.2 EnhancedUSVolumeStorage Enhanced US Volume Storage
1.2.840.10008.5.1.4.1.1.6.3 PhotoacousticImageStorage Photoacoustic Image Storage
1.2.840.10008.5.1.4.1.1.7 SecondaryCaptureImageStorage Secondary Capture Image Storage
1.2.840.10008.5.1.4.1.1.7.1 MultiFrameSingleBitSecondaryCaptureImageStorage Multi-frame Single Bit Secondary Capture Image Storage
1.2.840.10008.5.1.4.1.1.7.2 MultiFrameGrayscaleByteSecondaryCaptureImageStorage Multi-frame Grayscale Byte Secondary Capture Image Storage
1.2.840.10008.5.1.4.1.1.7.3 MultiFrameGrayscaleWordSecondaryCaptureImageStorage Multi-frame Grayscale Word Secondary Capture Image Storage
1.2.840.10008.5.1.4.1.1.7.4 MultiFrameTrueColorSecondaryCaptureImageStorage Multi-frame True Color Secondary Capture Image Storage
1.2.840.10008.5.1.4.1.1.9.1.1 TwelveLeadECGWaveformStorage 12-lead ECG Waveform Storage
1.2.840.10008.5.1.4.1.1.9.1.2 GeneralECGWaveformStorage General ECG Waveform Storage
1.2.840.10008.5.1.4.1.1.9.1.3 AmbulatoryECGWaveformStorage Ambulatory ECG Waveform Storage
1.2.840.10008.5.1.4.1.1.9.1.4 General32bitECGWaveformStorage General 32-bit ECG Waveform Storage
1.2.840.10008.5.1.4.1.1.9.2.1 HemodynamicWaveformStorage Hemodynamic Waveform Storage
1.2.840.10008.5.1.4.1.1.9.3.1 CardiacElectrophysiologyWaveformStorage Cardiac Electrophysiology Waveform Storage
1.2.840.10008.5.1.4.1.1.9.4.1 BasicVoiceAudioWaveformStorage Basic Voice Audio Waveform Storage
1.2.840.10008.5.1.4.1.1.9.4.2 GeneralAudioWaveformStorage General Audio Waveform Storage
1.2.840.10008.5.1.4.1.1.9.5.1 ArterialPulseWaveformStorage Arterial Pulse Waveform Storage
1.2.840.10008.5.1.4.1.1.9.6.1 RespiratoryWaveformStorage Respiratory Waveform Storage
1.2.840.10008.5.1.4.1.1.9.6.2 MultichannelRespiratoryWaveformStorage Multi-channel Respiratory Waveform Storage
1.2.840.10008.5.1.4.1.1.9.7.1 RoutineScalpElectroencephalogramWaveformStorage Routine Scalp Electroencephalogram Waveform Storage
1.2.840.10008.5.1.4.1.1.9.7.2 ElectromyogramWaveformStorage Electromyogram Waveform Storage
1.2.840.10008.5.1.4.1.1.9.7.3 ElectrooculogramWaveformStorage Electrooculogram Waveform Storage
1.2.840.10008.5.1.4.1.1.9.7.4 SleepElectroencephalogramWaveformStorage Sleep Electroencephalogram Waveform Storage
1.2.840.10008.5.1.4.1.1.9.8.1 BodyPositionWaveformStorage Body Position Waveform Storage
1.2.840.10008.5.1.4.1.1.9.100.1 WaveformPresentationStateStorage Waveform Presentation State Storage
1.2.840.10008.5.1.4.1.1.9.100.2 WaveformAcquisitionPresentationStateStorage Waveform Acquisition Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.1 GrayscaleSoftcopyPresentationStateStorage Grayscale Softcopy Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.2 ColorSoftcopyPresentationStateStorage Color Softcopy Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.3 PseudoColorSoftcopyPresentationStateStorage Pseudo-Color Softcopy Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.4 BlendingSoftcopyPresentationStateStorage Blending Softcopy Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.5 XAXRFGrayscaleSoftcopyPresentationStateStorage XA/XRF Grayscale Softcopy Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.6 GrayscalePlanarMPRVolumetricPresentationStateStorage Grayscale Planar MPR Volumetric Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.7 CompositingPlanarMPRVolumetricPresentationStateStorage Compositing Planar MPR Volumetric Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.8 AdvancedBlendingPresentationStateStorage Advanced Blending Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.9 VolumeRenderingVolumetricPresentationStateStorage Volume Rendering Volumetric Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.10 SegmentedVolumeRenderingVolumetricPresentationStateStorage Segmented Volume Rendering Volumetric Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.11 MultipleVolumeRenderingVolumetricPresentationStateStorage Multiple Volume Rendering Volumetric Presentation State Storage
1.2.840.10008.5.1.4.1.1.11.12 VariableModalityLUTSoftcopyPresentationStateStorage Variable Modality LUT Softcopy Presentation State Storage
1.2.840.10008.5.1.4.1.1.12.1 XRayAngiographicImageStorage X-Ray Angiographic Image Storage
1.2.840.10008.5.1.4.1.1.12.1.1 EnhancedXAImageStorage Enhanced XA Image Storage
1.2.840.10008.5.1.4.1.1.12.2 XRayRadiofluoroscopicImageStorage X-Ray Radiofluoroscopic Image Storage
1.2.840.10008.5.1.4.1.1.12.2.1 EnhancedXRFImageStorage Enhanced XRF Image Storage
1.2.840.10008.5.1.4.1.1.13.1.1 XRay3DAngiographicImageStorage X-Ray 3D Angiographic Image Storage
1.2.840.10008.5.1.4.1.1.13.1.2 XRay3DCraniofacialImageStorage X-Ray 3D Craniofacial Image Storage
1.2.840.10008.5.1.4.1.1.13.1.3 BreastTomosynthesisImageStorage Breast Tomosynthesis Image Storage
1.2.840.10008.5.1.4.1.1.13.1.4 BreastProjectionXRayImageStorageForPresentation Breast Projection X-Ray Image Storage - For Presentation
1.2.840.10008.5.1.4.1.1.13.1.5 BreastProjectionXRayImageStorageForProcessing Breast Projection X-Ray Image Storage - For Processing
1.2.840.10008.5.1.4.1.1.14.1 IntravascularOpticalCoherenceTomographyImageStorageForPresentation Intravascular Optical Coherence Tomography Image Storage - For Presentation
1.2.840.10008.5.1.4.1.1.14.2 IntravascularOpticalCoherenceTomographyImageStorageForProcessing Intravascular Optical Coherence Tomography Image Storage - For Processing
1.2.840.10008.5.1.4.1.1.20 NuclearMedicineImageStorage Nuclear Medicine Image Storage
1.2.840.10008.5.1.4.1.1.30 ParametricMapStorage Parametric Map Storage
1.2.840.10008.5.1.4.1.1.66 RawDataStorage Raw Data Storage
1.2.840.10008.5.1.4.1.1.66.1 SpatialRegistrationStorage Spatial Registration Storage
1.2.840.10008.5.1.4.1.1.66.2 SpatialFiducialsStorage Spatial Fiducials Storage
1.2.840.10008.5.1.4.1.1.66.3 DeformableSpatialRegistrationStorage Deformable Spatial Registration Storage
1.2.840.10008.5.1.4.1.1.66.4 SegmentationStorage Segmentation Storage
1.2.840.10008.5.1.4.1.1.66.5 SurfaceSegmentationStorage Surface Segmentation Storage
1.2.840.10008.5.1.4.1.1.66.6 TractographyResultsStorage Tractography Results Storage
1.2.840.10008.5.1.4.1.1.66.7 LabelMapSegmentationStorage Label Map Segmentation Storage
1.2.840.10008.5.1.4.1.1.66.8 HeightMapSegmentationStorage Height Map Segmentation Storage
1.2.840.10008.5.1.4.1.1.67 RealWorldValueMappingStorage Real World Value Mapping Storage
1.2.840.10008.5.1.4.1.1.68.1 SurfaceScanMeshStorage Surface Scan Mesh Storage
1.2.840.10008.5.1.4.1.1.68.2 SurfaceScanPointCloudStorage Surface Scan Point Cloud Storage
1.2.840.10008.5.1.4.1.1.77.1.1 VLEndoscopicImageStorage VL Endoscopic Image Storage
1.2.840.10008.5.1.4.1.1.77.1.1.1 VideoEndoscopicImageStorage Video Endoscopic Image Storage
1.2.840.10008.5.1.4.1.1.77.1.2 VLMicroscopicImageStorage VL Microscopic Image Storage
1.2.840.10008.5.1.4.1.1.77.1.2.1 VideoMicroscopicImageStorage Video Microscopic Image Storage
1.2.840.10008.5.1.4.1.1.77.1.3 VLSlideCoordinatesMicroscopicImageStorage VL Slide-Coordinates Microscopic Image Storage
1.2.840.10008.5.1.4.1.1.77.1.4 VLPhotographicImageStorage VL Photographic Image Storage
1.2.840.10008.5.1.4.1.1.77.1.4.1 VideoPhotographicImageStorage Video Photographic Image Storage
1.2.840.10008.5.1.4.1.1.77.1.5.1 OphthalmicPhotography8BitImageStorage Ophthalmic Photography 8 Bit Image Storage
1.2.840.10008.5.1.4.1.1.77.1.5.2 OphthalmicPhotography16BitImageStorage Ophthalmic Photography 16 Bit Image Storage
1.2.840.10008.5.1.4.1.1.77.1.5.3 StereometricRelationshipStorage Stereometric Relationship Storage
1.2.840.10008.5.1.4.1.1.77.1.5.4 OphthalmicTomographyImageStorage Ophthalmic Tomography Image Storage
1.2.840.10008.5.1.4.1.1.77.1.5.5 WideFieldOphthalmicPhotographyStereographicProjectionImageStorage Wide Field Ophthalmic Photography Stereographic Projection Image Storage
1.2.840.10008.5.1.4.1.1.77.1.5.6 WideFieldOphthalmicPhotography3DCoordinatesImageStorage Wide Field Ophthalmic Photography 3D Coordinates Image Storage
1.2.840.10008.5.1.4.1.1.77.1.5.7 OphthalmicOpticalCoherenceTomographyEnFaceImageStorage Ophthalmic Optical Coherence Tomography En Face Image Storage
1.2.840.10008.5.1.4.1.1.77.1.5.8 OphthalmicOpticalCoherenceTomographyBscanVolumeAnalysisStorage Ophthalmic Optical Coherence Tomography B-scan Volume Analysis Storage
1.2.840.10008.5.1.4.1.1.77.1.6 VLWholeSlideMicroscopyImageStorage VL Whole Slide Microscopy Image Storage
1.2.840.10008.5.1.4.1.1.77.1.7 DermoscopicPhotographyImageStorage Dermoscopic Photography Image Storage
1.2.840.10008.5.1.4.1.1.77.1.8 ConfocalMicroscopyImageStorage Confocal Microscopy Image Storage
1.2.840.10008.5.1.4.1.1.77.1.9 ConfocalMicroscopyTiledPyramidalImageStorage Confocal Microscopy Tiled Pyramidal Image Storage
1.2.840.10008.5.1.4.1.1.78.1 LensometryMeasurementsStorage Lensometry Measurements Storage
1.2.840.10008.5.1.4.1.1.78.2 AutorefractionMeasurementsStorage Autorefraction Measurements Storage
1.2.840.10008.5.1.4.1.1.78.3 KeratometryMeasurementsStorage Keratometry Measurements Storage
1.2.840.10008.5.1.4.1.1.78.4 SubjectiveRefractionMeasurementsStorage Subjective Refraction Measurements Storage
1.2.840.10008.5.1.4.1.1.78.5 VisualAcuityMeasurementsStorage Visual Acuity Measurements Storage
1.2.840.10008.5.1.4.1.1.78.6 SpectaclePrescriptionReportStorage Spectacle Prescription Report Storage
1.2.840.10008.5.1.4.1.1.78.7 OphthalmicAxialMeasurementsStorage Ophthalmic Axial Measurements Storage
1.2.840.10008.5.1.4.1.1.78.8 IntraocularLensCalculationsStorage Intraocular Lens Calculations Storage
1.2.840.10008.5.1.4.1.1.79.1 MacularGridThicknessAndVolumeReportStorage Macular Grid Thickness and Volume Report Storage
1.2.840.10008.5.1.4.1.1.80.1 OphthalmicVisualFieldStaticPerimetryMeasurementsStorage Ophthalmic Visual Field Static Perimetry Measurements Storage
1.2.840.10008.5.1.4.1.1.81.1 OphthalmicThicknessMapStorage Ophthalmic Thickness Map Storage
1.2.840.10008.5.1.4.1.1.82.1 CornealTopographyMapStorage Corneal Topography Map Storage
1.2.840.10008.5.1.4.1.1.88.11 BasicTextSRStorage Basic Text SR Storage
1.2.840.10008.5.1.4.1.1.88.22 EnhancedSRStorage Enhanced SR Storage
1.2.840.10008.5.1.4.1.1.88.33 ComprehensiveSRStorage Comprehensive SR Storage
1.2.840.10008.5.1.4.1.1.88.34 Comprehensive3DSRStorage Comprehensive 3D SR Storage
1.2.840.10008.5.1.4.1.1.88.35 ExtensibleSRStorage Extensible SR Storage
1.2.840.10008.5.1.4.1.1.88.40 ProcedureLogStorage Procedure Log Storage
1.2.840.10008.5.1.4.1.1.88.50 MammographyCADSRStorage Mammography CAD SR Storage
1.2.840.10008.5.1.4.1.1.88.59 KeyObjectSelectionDocumentStorage Key Object Selection Document Storage
1.2.840.10008.5.1.4.1.1.88.65 ChestCADSRStorage Chest CAD SR Storage
1.2.840.10008.5.1.4.1.1.88.67 XRayRadiationDoseSRStorage X-Ray Radiation Dose SR Storage
1.2.840.10008.5.1.4.1.1.88.68 RadiopharmaceuticalRadiationDoseSRStorage Radiopharmaceutical Radiation Dose SR Storage
1.2.840.10008.5.1.4.1.1.88.69 ColonCADSRStorage Colon CAD SR Storage
1.2.840.10008.5.1.4.1.1.88.70 ImplantationPlanSRStorage Implantation Plan SR Storage
1.2.840.10008.5.1.4.1.1.88.71 AcquisitionContextSRStorage Acquisition Context SR Storage
1.2.840.10008.5.1.4.1.1.88.72 SimplifiedAdultEchoSRStorage Simplified Adult Echo SR Storage
1.2.840.10008.5.1.4.1.1.88.73 PatientRadiationDoseSRStorage Patient Radiation Dose SR Storage
1.2.840.10008.5.1.4.1.1.88.74 PlannedImagingAgentAdministrationSRStorage Planned Imaging Agent Administration SR Storage
1.2.840.10008.5.1.4.1.1.88.75 PerformedImagingAgentAdministrationSRStorage Performed Imaging Agent Administration SR Storage
1.2.840.10008.5.1.4.1.1.88.76 EnhancedXRayRadiationDoseSRStorage Enhanced X-Ray Radiation Dose SR Storage
1.2.840.10008.5.1.4.1.1.88.77 WaveformAnnotationSRStorage Waveform Annotation SR Storage
1.2.840.10008.5.1.4.1.1.90.1 ContentAssessmentResultsStorage Content Assessment Results Storage
1.2.840.10008.5.1.4.1.1.91.1 MicroscopyBulkSimpleAnnotationsStorage Microscopy Bulk Simple Annotations Storage
1.2.840.10008.5.1.4.1.1.104.1 EncapsulatedPDFStorage Encapsulated PDF Storage
1.2.840.10008.5.1.4.1.1.104.2 EncapsulatedCDAStorage Encapsulated CDA Storage
1.2.840.10008.5.1.4.1.1.104.3 EncapsulatedSTLStorage Encapsulated STL Storage
1.2.840.10008.5.1.4.1.1.104.4 EncapsulatedOBJStorage Encapsulated OBJ Storage
1.2.840.10008.5.1.4.1.1.104.5 EncapsulatedMTLStorage Encapsulated MTL Storage
1.2.840.10008.5.1.4.1.1.128 PositronEmissionTomographyImageStorage Positron Emission Tomography Image Storage
1.2.840.10008.5.1.4.1.1.128.1 LegacyConvertedEnhancedPETImageStorage Legacy Converted Enhanced PET Image Storage
1.2.840.10008.5.1.4.1.1.130 EnhancedPETImageStorage Enhanced PET Image Storage
1.2.840.10008.5.1.4.1.1.131 BasicStructuredDisplayStorage Basic Structured Display Storage
1.2.840.10008.5.1.4.1.1.200.2 CTPerformedProcedureProtocolStorage CT Performed Procedure Protocol Storage
1.2.840.10008.5.1.4.1.1.200.8 XAPerformedProcedureProtocolStorage XA Performed Procedure Protocol Storage
1.2.840.10008.5.1.4.1.1.481.1 RTImageStorage RT Image Storage
1.2.840.10008.5.1.4.1.1.481.2 RTDoseStorage RT Dose Storage
1.2.840.10008.5.1.4.1.1.481.3 RTStructureSetStorage RT Structure Set Storage
1.2.840.10008.5.1.4.1.1.481.4 RTBeamsTreatmentRecordStorage RT Beams Treatment Record Storage
1.2.840.10008.5.1.4.1.1.481.5 RTPlanStorage RT Plan Storage
1.2.840.10008.5.1.4.1.1.481.6 RTBrachyTreatmentRecordStorage RT Brachy Treatment Record Storage
1.2.840.10008.5.1.4.1.1.481.7 RTTreatmentSummaryRecordStorage RT Treatment Summary Record Storage
1.2.840.10008.5.1.4.1.1.481.8 RTIonPlanStorage RT Ion Plan Storage
1.2.840.10008.5.1.4.1.1.481.9 RTIonBeamsTreatmentRecordStorage RT Ion Beams Treatment Record Storage
1.2.840.10008.5.1.4.1.1.481.10 RTPhysicianIntentStorage RT Physician Intent Storage
1.2.840.10008.5.1.4.1.1.481.11 RTSegmentAnnotationStorage RT Segment Annotation Storage
1.2.840.10008.5.1.4.1.1.481.12 RTRadiationSetStorage RT Radiation Set Storage
1.2.840.10008.5.1.4.1.1.481.13 CArmPhotonElectronRadiationStorage C-Arm Photon-Electron Radiation Storage
1.2.840.10008.5.1.4.1.1.481.14 TomotherapeuticRadiationStorage Tomotherapeutic Radiation Storage
1.2.840.10008.5.1.4.1.1.481.15 RoboticArmRadiationStorage Robotic-Arm Radiation Storage
1.2.840.10008.5.1.4.1.1.481.16 RTRadiationRecordSetStorage RT Radiation Record Set Storage
1.2.840.10008.5.1.4.1.1.481.17 RTRadiationSalvageRecordStorage RT Radiation Salvage Record Storage
1.2.840.10008.5.1.4.1.1.481.18 TomotherapeuticRadiationRecordStorage Tomotherapeutic Radiation Record Storage
1.2.840.10008.5.1.4.1.1.481.19 CArmPhotonElectronRadiationRecordStorage C-Arm Photon-Electron Radiation Record Storage
1.2.840.10008.5.1.4.1.1.481.20 RoboticRadiationRecordStorage Robotic Radiation Record Storage
1.2.840.10008.5.1.4.1.1.481.21 RTRadiationSetDeliveryInstructionStorage RT Radiation Set Delivery Instruction Storage
1.2.840.10008.5.1.4.1.1.481.22 RTTreatmentPreparationStorage RT Treatment Preparation Storage
1.2.840.10008.5.1.4.1.1.481.23 EnhancedRTImageStorage Enhanced RT Image Storage
1.2.840.10008.5.1.4.1.1.481.24 EnhancedContinuousRTImageStorage Enhanced Continuous RT Image Storage
1.2.840.10008.5.1.4.1.1.481.25 RTPatientPositionAcquisitionInstructionStorage RT Patient Position Acquisition Instruction Storage
1.2.840.10008.5.1.4.34.7 RTBeamsDeliveryInstructionStorage RT Beams Delivery Instruction Storage
1.2.840.10008.5.1.4.34.10 RTBrachyApplicationSetupDeliveryInstructionStorage RT Brachy Application Setup Delivery Instruction Storage
"""
"""Composite storage: objects of a patient, a study and a series (PS3.4 Table B.5-1)."""

NON_PATIENT_STORAGE = """\
1.2.840.10008.5.1.4.1.1.200.1 CTDefinedProcedureProtocolStorage CT Defined Procedure Protocol Storage
1.2.840.10008.5.1.4.1.1.200.3 ProtocolApprovalStorage Protocol Approval Storage
1.2.840.10008.5.1.4.1.1.200.7 XADefinedProcedureProtocolStorage XA Defined Procedure Protocol Storage
1.2.840.10008.5.1.4.1.1.201.1 InventoryStorage Inventory Storage
1.2.840.10008.5.1.4.38.1 HangingProtocolStorage Hanging Protocol Storage
1.2.840.10008.5.1.4.39.1 ColorPaletteStorage Color Palette Storage
1.2.840.10008.5.1.4.43.1 GenericImplantTemplateStorage Generic Implant Template Storage
1.2.840.10008.5.1.4.44.1 ImplantAssemblyTemplateStorage Implant Assembly Template Storage
1.2.840.10008.5.1.4.45.1 ImplantTemplateGroupStorage Implant Template Group Storage
"""
"""Storage of objects that belong to no patient and no study (PS3.4 Table GG.3-1)."""

RETIRED_STORAGE = """\
1.2.840.10008.5.1.1.27 StoredPrintStorage Stored Print Storage SOP Class
1.2.840.10008.5.1.1.29 HardcopyGrayscaleImageStorage Hardcopy Grayscale Image Storage SOP Class
1.2.840.10008.5.1.1.30 HardcopyColorImageStorage Hardcopy Color Image Storage SOP Class
1.2.840.10008.5.1.4.1.1.3 UltrasoundMultiFrameImageStorageRetired Ultrasound Multi-frame Image Storage
1.2.840.10008.5.1.4.1.1.5 NuclearMedicineImageStorageRetired Nuclear Medicine Image Storage
1.2.840.10008.5.1.4.1.1.6 UltrasoundImageStorageRetired Ultrasound Image Storage
1.2.840.10008.5.1.4.1.1.8 StandaloneOverlayStorage Standalone Overlay Storage
1.2.840.10008.5.1.4.1.1.9 StandaloneCurveStorage Standalone Curve Storage
1.2.840.10008.5.1.4.1.1.10 StandaloneModalityLUTStorage Standalone Modality LUT Storage
1.2.840.10008.5.1.4.1.1.11 StandaloneVOILUTStorage Standalone VOI LUT Storage
1.2.840.10008.5.1.4.1.1.12.3 XRayAngiographicBiPlaneImageStorage X-Ray Angiographic Bi-Plane Image Storage
1.2.840.10008.5.1.4.1.1.12.77 ZeissOPTFile Zeiss OPT File
1.2.840.10008.5.1.4.1.1.40 MRImageStorageZeroPadded MR Image Storage Zero Padded
1.2.840.10008.5.1.4.1.1.77.1 VLImageStorageTrial VL Image Storage - Trial
1.2.840.10008.5.1.4.1.1.77.2 VLMultiFrameImageStorageTrial VL Multi-frame Image Storage - Trial
1.2.840.10008.5.1.4.1.1.129 StandalonePETCurveStorage Standalone PET Curve Storage
"""
"""Composite storage that the standard has retired; old archives are full of it. PS3.6 has withdrawn the names of
1.2.840.10008.5.1.4.1.1.12.77 and .40 with the classes; these are the names that they had before."""

DRAFT_STORAGE = """\
1.2.840.10008.5.1.4.1.1.9.1 WaveformStorageTrial Waveform Storage - Trial
1.2.840.10008.5.1.4.1.1.88.1 TextSRStorageTrial Text SR Storage - Trial
1.2.840.10008.5.1.4.1.1.88.2 AudioSRStorageTrial Audio SR Storage - Trial
1.2.840.10008.5.1.4.1.1.88.3 DetailSRStorageTrial Detail SR Storage - Trial
1.2.840.10008.5.1.4.1.1.88.4 ComprehensiveSRStorageTrial Comprehensive SR Storage - Trial
1.2.840.10008.5.1.4.34.1 RTBeamsDeliveryInstructionStorageTrial RT Beams Delivery Instruction Storage - Trial
"""
"""Composite storage of supplements in trial use, whose final text has other classes."""

DICOS_STORAGE = """\
1.2.840.10008.5.1.4.1.1.501.1 DICOSCTImageStorage DICOS CT Image Storage
1.2.840.10008.5.1.4.1.1.501.2.1 DICOSDigitalXRayImageStorageForPresentation DICOS Digital X-Ray Image Storage - For Presentation
1.2.840.10008.5.1.4.1.1.501.2.2 DICOSDigitalXRayImageStorageForProcessing DICOS Digital X-Ray Image Storage - For Processing
1.2.840.10008.5.1.4.1.1.501.3 DICOSThreatDetectionReportStorage DICOS Threat Detection Report Storage
1.2.840.10008.5.1.4.1.1.501.4 DICOS2DAITStorage DICOS 2D AIT Storage
1.2.840.10008.5.1.4.1.1.501.5 DICOS3DAITStorage DICOS 3D AIT Storage
1.2.840.10008.5.1.4.1.1.501.6 DICOSQuadrupoleResonanceStorage DICOS Quadrupole Resonance (QR) Storage
"""
"""Composite storage of security screening (NEMA IIC 1)."""

DICONDE_STORAGE = """\
1.2.840.10008.5.1.4.1.1.601.1 EddyCurrentImageStorage Eddy Current Image Storage
1.2.840.10008.5.1.4.1.1.601.2 EddyCurrentMultiFrameImageStorage Eddy Current Multi-frame Image Storage
1.2.840.10008.5.1.4.1.1.601.3 ThermographyImageStorage Thermography Image Storage
1.2.840.10008.5.1.4.1.1.601.4 ThermographyMultiFrameImageStorage Thermography Multi-frame Image Storage
1.2.840.10008.5.1.4.1.1.601.5 UltrasoundWaveformStorage Ultrasound Waveform Storage
"""
"""Composite storage of non-destructive testing (ASTM E2339 and its companions)."""

PRIVATE_STORAGE = """\
1.2.40.0.13.0.5.1.4.1.1.7 PrivateTianiSecondaryCaptureImageStorage Tiani Secondary Capture Image Storage
1.2.40.0.13.1.5.1.4.1.1.2.1 PrivateDcm4cheUpgradedCTImageStorage dcm4che Upgraded CT Image Storage
1.2.40.0.13.1.5.1.4.1.1.4.1 PrivateDcm4cheUpgradedMRImageStorage dcm4che Upgraded MR Image Storage
1.2.40.0.13.1.5.1.4.1.1.104.1 PrivateDcm4cheEncapsulatedGenozipStorage dcm4che Encapsulated Genozip Storage
1.2.40.0.13.1.5.1.4.1.1.104.2 PrivateDcm4cheEncapsulatedBzip2VCFStorage dcm4che Encapsulated Bzip2 VCF Storage
1.2.40.0.13.1.5.1.4.1.1.104.3 PrivateDcm4cheEncapsulatedBzip2DocumentStorage dcm4che Encapsulated Bzip2 Document Storage
1.2.40.0.13.1.5.1.4.1.1.128.1 PrivateDcm4cheUpgradedPETImageStorage dcm4che Upgraded PET Image Storage
1.2.124.113532.3500.7 PrivateAgfaBasicAttributePresentationState Agfa Basic Attribute Presentation State
1.2.124.113532.3500.8.1 PrivateAgfaArrivalTransaction Agfa Arrival Transaction
1.2.124.113532.3500.8.2 PrivateAgfaDictationTransaction Agfa Dictation Transaction
1.2.124.113532.3500.8.3 PrivateAgfaReportTranscriptionTransaction Agfa Report Transcription Transaction
1.2.124.113532.3500.8.4 PrivateAgfaReportApprovalTransaction Agfa Report Approval Transaction
1.2.246.352.70.1.70 PrivateVarianRTPlanStorage Varian RT Plan Storage
1.2.276.0.48.5.1.4.1.1.7 PrivateTomTecAnnotationStorage TomTec Annotation Storage
1.2.392.200036.9116.7.8.1.1.1 PrivateToshibaUSImageStorage Toshiba US Private Data Storage
1.2.392.200036.9125.1.1.2 PrivateFujiCRImageStorage Fuji CR Image Storage
1.2.392.200036.9125.1.1.4 PrivateFujiMammoCRImageStorage Fuji Mammography CR Image Storage
1.2.528.1.1001.5.1.1.1 PrivateGECollageStorage GE Collage Storage
1.2.826.0.1.3680043.2.93.1.0.1 PrivatePracticeBuilderReportTextStorage Practice Builder Report Text Storage
1.2.826.0.1.3680043.2.93.1.0.2 PrivatePracticeBuilderReportDictationStorage Practice Builder Report Dictation Storage
1.2.826.0.1.3680043.293.1.0.1 PrivateERADPracticeBuilderReportTextStorage eRAD Practice Builder Report Text Storage
1.2.826.0.1.3680043.293.1.0.2 PrivateERADPracticeBuilderReportDictationStorage eRAD Practice Builder Report Dictation Storage
1.2.840.113543.6.6.1.3.10001 PrivatePhilipsHPLive3D01Storage Philips HP Live 3D 01 Storage
1.2.840.113543.6.6.1.3.10002 PrivatePhilipsHPLive3D02Storage Philips HP Live 3D 02 Storage
1.2.840.113619.4.2 PrivateGEDicomMRImageInfoObject GE DICOM MR Image Info Object
1.2.840.113619.4.3 PrivateGEDicomCTImageInfoObject GE DICOM CT Image Info Object
1.2.840.113619.4.4 PrivateGEDicomDisplayImageInfoObject GE DICOM Display Image Info Object
1.2.840.113619.4.5.249 PrivateGERTPlanStorage GE RT Plan Storage
1.2.840.113619.4.26 PrivateGE3DModelStorage GE 3D Model Storage
1.2.840.113619.4.27 PrivateGEeNTEGRAProtocolOrNMGenieStorage GE eNTEGRA Protocol or NM Genie Storage
1.2.840.113619.4.30 PrivateGEPETRawDataStorage GE PET Raw Data Storage
1.2.840.113619.5.249 PrivateGERTPlanStorageOld GE RT Plan Storage, older UID
1.2.840.113619.5.253 PrivateGESaturnTDSObjectStorage GE Saturn TDS Object Storage
1.3.6.1.4.1.5962.301.1 PrivatePixelMedLegacyConvertedEnhancedCTImageStorage PixelMed Legacy Converted Enhanced CT Image Storage
1.3.6.1.4.1.5962.301.2 PrivatePixelMedLegacyConvertedEnhancedMRImageStorage PixelMed Legacy Converted Enhanced MR Image Storage
1.3.6.1.4.1.5962.301.3 PrivatePixelMedLegacyConvertedEnhancedPETImageStorage PixelMed Legacy Converted Enhanced PET Image Storage
1.3.6.1.4.1.5962.301.9 PrivatePixelMedFloatingPointImageStorage PixelMed Floating Point Image Storage
1.3.6.1.4.1.16978.3.1 PrivateMedicalInsight3DSoftcopyPresentationStateStorage Medical Insight 3D Softcopy Presentation State Storage
1.3.12.2.1107.5.9.1 PrivateSiemensCSANonImageStorage Siemens CSA Non-Image Storage
1.3.12.2.1107.5.99.3.10 PrivateSiemensCTMRVolumeStorage Siemens CT MR Volume Storage
1.3.12.2.1107.5.99.3.11 PrivateSiemensAXFrameSetsStorage Siemens AX Frame Sets Storage
1.3.46.670589.2.3.1.1 PrivatePhilipsSpecialisedXAStorage Philips Specialised XA Storage
1.3.46.670589.2.4.1.1 PrivatePhilipsCXImageStorage Philips CX Image Storage
1.3.46.670589.2.5.1.1 PrivatePhilips3DPresentationStateStorage Philips 3D Presentation State Storage
1.3.46.670589.2.8.1.1 PrivatePhilipsVRMLStorage Philips VRML Storage
1.3.46.670589.2.11.1.1 PrivatePhilipsVolumeSetStorage Philips Volume Set Storage
1.3.46.670589.5.0.1 PrivatePhilipsVolumeStorageRetired Philips Volume Storage (Retired)
1.3.46.670589.5.0.1.1 PrivatePhilipsVolumeStorage Philips Volume Storage
1.3.46.670589.5.0.2 PrivatePhilips3DObjectStorageRetired Philips 3D Object Storage (Retired)
1.3.46.670589.5.0.2.1 PrivatePhilips3DObjectStorage Philips 3D Object Storage
1.3.46.670589.5.0.3 PrivatePhilipsSurfaceStorageRetired Philips Surface Storage (Retired)
1.3.46.670589.5.0.3.1 PrivatePhilipsSurfaceStorage Philips Surface Storage
1.3.46.670589.5.0.4 PrivatePhilipsCompositeObjectStorage Philips Composite Object Storage
1.3.46.670589.5.0.7 PrivatePhilipsMRCardioProfileStorage Philips MR Cardio Profile Storage
1.3.46.670589.5.0.8 PrivatePhilipsMRCardioStorageRetired Philips MR Cardio Storage (Retired)
1.3.46.670589.5.0.8.1 PrivatePhilipsMRCardioStorage Philips MR Cardio Storage
1.3.46.670589.5.0.9 PrivatePhilipsCTSyntheticImageStorage Philips CT Synthetic Image Storage
1.3.46.670589.5.0.10 PrivatePhilipsMRSyntheticImageStorage Philips MR Synthetic Image Storage
1.3.46.670589.5.0.11 PrivatePhilipsMRCardioAnalysisStorageRetired Philips MR Cardio Analysis Storage (Retired)
1.3.46.670589.5.0.11.1 PrivatePhilipsMRCardioAnalysisStorage Philips MR Cardio Analysis Storage
1.3.46.670589.5.0.12 PrivatePhilipsCXSyntheticImageStorage Philips CX Synthetic Image Storage
1.3.46.670589.5.0.13 PrivatePhilipsPerfusionStorage Philips Perfusion Storage
1.3.46.670589.5.0.14 PrivatePhilipsPerfusionImageStorage Philips Perfusion Image Storage
1.3.46.670589.7.8.1618510091 PrivatePhilipsXRayMFStorage Philips X-Ray MF Storage
1.3.46.670589.7.8.1618510092 PrivatePhilipsLiveRunStorage Philips Live Run Storage
1.3.46.670589.7.8.16185100129 PrivatePhilipsRunStorage Philips Run Storage
1.3.46.670589.7.8.16185100130 PrivatePhilipsReconstructionStorage Philips Reconstruction Storage
1.3.46.670589.11.0.0.12.1 PrivatePhilipsMRSpectrumStorage Philips MR Spectrum Storage
1.3.46.670589.11.0.0.12.2 PrivatePhilipsMRSeriesDataStorage Philips MR Series Data Storage
1.3.46.670589.11.0.0.12.3 PrivatePhilipsMRColorImageStorage Philips MR Color Image Storage
1.3.46.670589.11.0.0.12.4 PrivatePhilipsMRExamcardStorage Philips MR Examcard Storage
2.16.840.1.113709.1.5.1 PrivateGEPACSIMSInfoStorage GE PACS IMS Info Storage
2.16.840.1.114033.5.1.4.1.1.130 PrivatePMODMultiFrameImageStorage PMOD Multi-frame Image Storage
"""
"""Storage classes of manufacturers. Their definitions are mostly unpublished, so the names are the ones in use."""

STANDARD_OTHER = """\
1.2.840.10008.1.1 Verification Verification SOP Class
1.2.840.10008.1.3.10 MediaStorageDirectoryStorage Media Storage Directory Storage
1.2.840.10008.1.20.1 StorageCommitmentPushModel Storage Commitment Push Model SOP Class
1.2.840.10008.1.40 ProceduralEventLogging Procedural Event Logging SOP Class
1.2.840.10008.1.42 SubstanceAdministrationLogging Substance Administration Logging SOP Class
1.2.840.10008.3.1.2.3.3 ModalityPerformedProcedureStep Modality Performed Procedure Step SOP Class
1.2.840.10008.3.1.2.3.4 ModalityPerformedProcedureStepRetrieve Modality Performed Procedure Step Retrieve SOP Class
1.2.840.10008.3.1.2.3.5 ModalityPerformedProcedureStepNotification Modality Performed Procedure Step Notification SOP Class
1.2.840.10008.5.1.1.1 BasicFilmSession Basic Film Session SOP Class
1.2.840.10008.5.1.1.2 BasicFilmBox Basic Film Box SOP Class
1.2.840.10008.5.1.1.4 BasicGrayscaleImageBox Basic Grayscale Image Box SOP Class
1.2.840.10008.5.1.1.4.1 BasicColorImageBox Basic Color Image Box SOP Class
1.2.840.10008.5.1.1.9 BasicGrayscalePrintManagementMeta Basic Grayscale Print Management Meta SOP Class
1.2.840.10008.5.1.1.14 PrintJob Print Job SOP Class
1.2.840.10008.5.1.1.15 BasicAnnotationBox Basic Annotation Box SOP Class
1.2.840.10008.5.1.1.16 Printer Printer SOP Class
1.2.840.10008.5.1.1.16.376 PrinterConfigurationRetrieval Printer Configuration Retrieval SOP Class
1.2.840.10008.5.1.1.18 BasicColorPrintManagementMeta Basic Color Print Management Meta SOP Class
1.2.840.10008.5.1.1.22 VOILUTBox VOI LUT Box SOP Class
1.2.840.10008.5.1.1.23 PresentationLUT Presentation LUT SOP Class
1.2.840.10008.5.1.1.33 MediaCreationManagement Media Creation Management SOP Class UID
1.2.840.10008.5.1.1.40 DisplaySystem Display System SOP Class
1.2.840.10008.5.1.4.1.1.200.4 ProtocolApprovalInformationModelFind Protocol Approval Information Model - FIND
1.2.840.10008.5.1.4.1.1.200.5 ProtocolApprovalInformationModelMove Protocol Approval Information Model - MOVE
1.2.840.10008.5.1.4.1.1.200.6 ProtocolApprovalInformationModelGet Protocol Approval Information Model - GET
1.2.840.10008.5.1.4.1.1.201.2 InventoryFind Inventory - FIND
1.2.840.10008.5.1.4.1.1.201.3 InventoryMove Inventory - MOVE
1.2.840.10008.5.1.4.1.1.201.4 InventoryGet Inventory - GET
1.2.840.10008.5.1.4.1.1.201.5 InventoryCreation Inventory Creation
1.2.840.10008.5.1.4.1.1.201.6 RepositoryQuery Repository Query
1.2.840.10008.5.1.4.1.2.1.1 PatientRootQueryRetrieveInformationModelFind Patient Root Query/Retrieve Information Model - FIND
1.2.840.10008.5.1.4.1.2.1.2 PatientRootQueryRetrieveInformationModelMove Patient Root Query/Retrieve Information Model - MOVE
1.2.840.10008.5.1.4.1.2.1.3 PatientRootQueryRetrieveInformationModelGet Patient Root Query/Retrieve Information Model - GET
1.2.840.10008.5.1.4.1.2.2.1 StudyRootQueryRetrieveInformationModelFind Study Root Query/Retrieve Information Model - FIND
1.2.840.10008.5.1.4.1.2.2.2 StudyRootQueryRetrieveInformationModelMove Study Root Query/Retrieve Information Model - MOVE
1.2.840.10008.5.1.4.1.2.2.3 StudyRootQueryRetrieveInformationModelGet Study Root Query/Retrieve Information Model - GET
1.2.840.10008.5.1.4.1.2.4.2 CompositeInstanceRootRetrieveMove Composite Instance Root Retrieve - MOVE
1.2.840.10008.5.1.4.1.2.4.3 CompositeInstanceRootRetrieveGet Composite Instance Root Retrieve - GET
1.2.840.10008.5.1.4.1.2.5.3 CompositeInstanceRetrieveWithoutBulkDataGet Composite Instance Retrieve Without Bulk Data - GET
1.2.840.10008.5.1.4.20.1 DefinedProcedureProtocolInformationModelFind Defined Procedure Protocol Information Model - FIND
1.2.840.10008.5.1.4.20.2 DefinedProcedureProtocolInformationModelMove Defined Procedure Protocol Information Model - MOVE
1.2.840.10008.5.1.4.20.3 DefinedProcedureProtocolInformationModelGet Defined Procedure Protocol Information Model - GET
1.2.840.10008.5.1.4.31 ModalityWorklistInformationModelFind Modality Worklist Information Model - FIND
1.2.840.10008.5.1.4.33 InstanceAvailabilityNotification Instance Availability Notification SOP Class
1.2.840.10008.5.1.4.34.6.1 UnifiedProcedureStepPush Unified Procedure Step - Push SOP Class
1.2.840.10008.5.1.4.34.6.2 UnifiedProcedureStepWatch Unified Procedure Step - Watch SOP Class
1.2.840.10008.5.1.4.34.6.3 UnifiedProcedureStepPull Unified Procedure Step - Pull SOP Class
1.2.840.10008.5.1.4.34.6.4 UnifiedProcedureStepEvent Unified Procedure Step - Event SOP Class
1.2.840.10008.5.1.4.34.6.5 UnifiedProcedureStepQuery Unified Procedure Step - Query SOP Class
1.2.840.10008.5.1.4.34.8 RTConventionalMachineVerification RT Conventional Machine Verification
1.2.840.10008.5.1.4.34.9 RTIonMachineVerification RT Ion Machine Verification
1.2.840.10008.5.1.4.37.1 GeneralRelevantPatientInformationQuery General Relevant Patient Information Query
1.2.840.10008.5.1.4.37.2 BreastImagingRelevantPatientInformationQuery Breast Imaging Relevant Patient Information Query
1.2.840.10008.5.1.4.37.3 CardiacRelevantPatientInformationQuery Cardiac Relevant Patient Information Query
1.2.840.10008.5.1.4.38.2 HangingProtocolInformationModelFind Hanging Protocol Information Model - FIND
1.2.840.10008.5.1.4.38.3 HangingProtocolInformationModelMove Hanging Protocol Information Model - MOVE
1.2.840.10008.5.1.4.38.4 HangingProtocolInformationModelGet Hanging Protocol Information Model - GET
1.2.840.10008.5.1.4.39.2 ColorPaletteQueryRetrieveInformationModelFind Color Palette Query/Retrieve Information Model - FIND
1.2.840.10008.5.1.4.39.3 ColorPaletteQueryRetrieveInformationModelMove Color Palette Query/Retrieve Information Model - MOVE
1.2.840.10008.5.1.4.39.4 ColorPaletteQueryRetrieveInformationModelGet Color Palette Query/Retrieve Information Model - GET
1.2.840.10008.5.1.4.41 ProductCharacteristicsQuery Product Characteristics Query SOP Class
1.2.840.10008.5.1.4.42 SubstanceApprovalQuery Substance Approval Query SOP Class
1.2.840.10008.5.1.4.43.2 GenericImplantTemplateInformationModelFind Generic Implant Template Information Model - FIND
1.2.840.10008.5.1.4.43.3 GenericImplantTemplateInformationModelMove Generic Implant Template Information Model - MOVE
1.2.840.10008.5.1.4.43.4 GenericImplantTemplateInformationModelGet Generic Implant Template Information Model - GET
1.2.840.10008.5.1.4.44.2 ImplantAssemblyTemplateInformationModelFind Implant Assembly Template Information Model - FIND
1.2.840.10008.5.1.4.44.3 ImplantAssemblyTemplateInformationModelMove Implant Assembly Template Information Model - MOVE
1.2.840.10008.5.1.4.44.4 ImplantAssemblyTemplateInformationModelGet Implant Assembly Template Information Model - GET
1.2.840.10008.5.1.4.45.2 ImplantTemplateGroupInformationModelFind Implant Template Group Information Model - FIND
1.2.840.10008.5.1.4.45.3 ImplantTemplateGroupInformationModelMove Implant Template Group Information Model - MOVE
1.2.840.10008.5.1.4.45.4 ImplantTemplateGroupInformationModelGet Implant Template Group Information Model - GET
1.2.840.10008.10.1 VideoEndoscopicImageRealTimeCommunication Video Endoscopic Image Real-Time Communication
1.2.840.10008.10.2 VideoPhotographicImageRealTimeCommunication Video Photographic Image Real-Time Communication
1.2.840.10008.10.3 AudioWaveformRealTimeCommunication Audio Waveform Real-Time Communication
1.2.840.10008.10.4 RenditionSelectionDocumentRealTimeCommunication Rendition Selection Document Real-Time Communication
"""
"""Classes of other services than storage, among them media directories and real-time video."""

RETIRED_OTHER = """\
1.2.840.10008.1.9 BasicStudyContentNotification Basic Study Content Notification SOP Class
1.2.840.10008.1.20.2 StorageCommitmentPullModel Storage Commitment Pull Model SOP Class
1.2.840.10008.3.1.2.1.1 DetachedPatientManagement Detached Patient Management SOP Class
1.2.840.10008.3.1.2.1.4 DetachedPatientManagementMeta Detached Patient Management Meta SOP Class
1.2.840.10008.3.1.2.2.1 DetachedVisitManagement Detached Visit Management SOP Class
1.2.840.10008.3.1.2.3.1 DetachedStudyManagement Detached Study Management SOP Class
1.2.840.10008.3.1.2.3.2 StudyComponentManagement Study Component Management SOP Class
1.2.840.10008.3.1.2.5.1 DetachedResultsManagement Detached Results Management SOP Class
1.2.840.10008.3.1.2.5.4 DetachedResultsManagementMeta Detached Results Management Meta SOP Class
1.2.840.10008.3.1.2.5.5 DetachedStudyManagementMeta Detached Study Management Meta SOP Class
1.2.840.10008.3.1.2.6.1 DetachedInterpretationManagement Detached Interpretation Management SOP Class
1.2.840.10008.5.1.1.4.2 ReferencedImageBox Referenced Image Box SOP Class
1.2.840.10008.5.1.1.9.1 ReferencedGrayscalePrintManagementMeta Referenced Grayscale Print Management Meta SOP Class
1.2.840.10008.5.1.1.18.1 ReferencedColorPrintManagementMeta Referenced Color Print Management Meta SOP Class
1.2.840.10008.5.1.1.24 ImageOverlayBox Image Overlay Box SOP Class
1.2.840.10008.5.1.1.24.1 BasicPrintImageOverlayBox Basic Print Image Overlay Box SOP Class
1.2.840.10008.5.1.1.26 PrintQueueManagement Print Queue Management SOP Class
1.2.840.10008.5.1.1.31 PullPrintRequest Pull Print Request SOP Class
1.2.840.10008.5.1.1.32 PullStoredPrintManagementMeta Pull Stored Print Management Meta SOP Class
1.2.840.10008.5.1.4.1.2.3.1 PatientStudyOnlyQueryRetrieveInformationModelFind Patient/Study Only Query/Retrieve Information Model - FIND
1.2.840.10008.5.1.4.1.2.3.2 PatientStudyOnlyQueryRetrieveInformationModelMove Patient/Study Only Query/Retrieve Information Model - MOVE
1.2.840.10008.5.1.4.1.2.3.3 PatientStudyOnlyQueryRetrieveInformationModelGet Patient/Study Only Query/Retrieve Information Model - GET
1.2.840.10008.5.1.4.32 GeneralPurposeWorklistManagementMeta General Purpose Worklist Management Meta SOP Class
1.2.840.10008.5.1.4.32.1 GeneralPurposeWorklistInformationModelFind General Purpose Worklist Information Model - FIND
1.2.840.10008.5.1.4.32.2 GeneralPurposeScheduledProcedureStep General Purpose Scheduled Procedure Step SOP Class
1.2.840.10008.5.1.4.32.3 GeneralPurposePerformedProcedureStep General Purpose Performed Procedure Step SOP Class
"""
"""The same, retired."""

DRAFT_OTHER = """\
1.2.840.10008.5.1.4.34.2 RTConventionalMachineVerificationTrial RT Conventional Machine Verification - Trial
1.2.840.10008.5.1.4.34.3 RTIonMachineVerificationTrial RT Ion Machine Verification - Trial
1.2.840.10008.5.1.4.34.4.1 UnifiedProcedureStepPushTrial Unified Procedure Step - Push SOP Class - Trial
1.2.840.10008.5.1.4.34.4.2 UnifiedProcedureStepWatchTrial Unified Procedure Step - Watch SOP Class - Trial
1.2.840.10008.5.1.4.34.4.3 UnifiedProcedureStepPullTrial Unified Procedure Step - Pull SOP Class - Trial
1.2.840.10008.5.1.4.34.4.4 UnifiedProcedureStepEventTrial Unified Procedure Step - Event SOP Class - Trial
"""
"""The same, from supplements in trial use."""

PRIVATE_OTHER = """\
1.2.40.0.13.0.1.3.10 PrivateTianiMediaStorageDirectoryStorage Tiani Media Storage Directory Storage
1.2.40.0.13.0.5.1.4.1.2.2.2 PrivateTianiStudyRootQueryRetrieveInformationModelMove Tiani Study Root Query/Retrieve Information Model - MOVE
1.2.40.0.13.1.3.1.2.3.1.1 PrivateDcm4cheAttributesModificationNotification dcm4che Attributes Modification Notification
1.2.40.0.13.1.5.1.4.1.2.2.1 PrivateStudyRootQueryRetrieveInformationModelFind dcm4che Study Root Query/Retrieve Information Model - FIND
1.2.40.0.13.1.5.1.4.1.2.2.1.1 PrivateBlockedStudyRootQueryRetrieveInformationModelFind dcm4che Blocked Study Root Query/Retrieve Information Model - FIND
1.2.40.0.13.1.5.1.4.1.2.2.1.2 PrivateVirtualMultiFrameStudyRootQueryRetrieveInformationModelFind dcm4che Virtual Multi-frame Study Root Query/Retrieve Information Model - FIND
1.2.276.0.7230010.3.4.1915765545.18030.917282194.0 PrivateShutdown DCMTK Shutdown
1.2.826.0.1.3680043.2.135.1066.5.1.4.1.2.1.2 PrivatePatientRootQueryRetrieveInformationModelMove Conquest Patient Root Query/Retrieve Information Model - MOVE
1.2.826.0.1.3680043.2.135.1066.5.1.4.1.2.2.2 PrivateStudyRootQueryRetrieveInformationModelMove Conquest Study Root Query/Retrieve Information Model - MOVE
1.2.826.0.1.3680043.2.135.1066.5.1.4.1.2.3.2 PrivatePatientStudyOnlyQueryRetrieveInformationModelMove Conquest Patient/Study Only Query/Retrieve Information Model - MOVE
"""
"""Manufacturers' classes of other services than storage."""

REGISTERED_OTHERWISE = """\
1.2.840.10008.1.20.1.1 StorageCommitmentPushModelInstance Storage Commitment Push Model SOP Instance
1.2.840.10008.1.20.2.1 StorageCommitmentPullModelInstance Storage Commitment Pull Model SOP Instance
1.2.840.10008.1.40.1 ProceduralEventLoggingInstance Procedural Event Logging SOP Instance
1.2.840.10008.1.42.1 SubstanceAdministrationLoggingInstance Substance Administration Logging SOP Instance
1.2.840.10008.5.1.1.17 PrinterInstance Printer SOP Instance
1.2.840.10008.5.1.1.17.376 PrinterConfigurationRetrievalInstance Printer Configuration Retrieval SOP Instance
1.2.840.10008.5.1.1.25 PrintQueueInstance Print Queue SOP Instance
1.2.840.10008.5.1.1.40.1 DisplaySystemInstance Display System SOP Instance
1.2.840.10008.5.1.4.1.1.201.1.1 StorageManagementInstance Storage Management SOP Instance
1.2.840.10008.5.1.4.34.4 UnifiedWorklistAndProcedureStepTrial Unified Worklist and Procedure Step Service Class - Trial
1.2.840.10008.5.1.4.34.5 UPSGlobalSubscriptionInstance UPS Global Subscription SOP Instance
1.2.840.10008.5.1.4.34.5.1 UPSFilteredGlobalSubscriptionInstance UPS Filtered Global Subscription SOP Instance
1.2.840.10008.5.1.4.34.6 UnifiedWorklistAndProcedureStep Unified Worklist and Procedure Step Service Class
"""
"""UIDs beside the SOP classes in PS3.6 Table A-1 that name a SOP instance or a service class."""

ARCS_WITHOUT_SOP_CLASSES = (
    "1.2.840.10008.1.2.",  # transfer syntaxes
    "1.2.840.10008.1.4.",  # frames of reference
    "1.2.840.10008.1.5.",  # color palette instances
    "1.2.840.10008.2.",  # coding schemes
    "1.2.840.10008.3.1.1.",  # application contexts
    "1.2.840.10008.4.",  # service classes
    "1.2.840.10008.6.",  # context groups
    "1.2.840.10008.7.",  # application hosting models
    "1.2.840.10008.8.",  # mapping resources
    "1.2.840.10008.9.",  # document templates
    "1.2.840.10008.15.",  # directory attributes and time bases
)
"""Arcs under the root of DICOM in which PS3.6 Annex A has no SOP class."""
