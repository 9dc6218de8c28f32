//! What the synthetic world is made of: names of several origins, places, codes. Written for this project.

/// Names that go together.
pub struct Origin {
    /// BCP 47 tag and display of the language spoken at home beside English; None: English alone.
    pub language: Option<(&'static str, &'static str)>,
    pub female: &'static [&'static str],
    pub male: &'static [&'static str],
    pub family: &'static [&'static str],
}

pub const ORIGINS: &[Origin] = &[
    Origin {
        language: None,
        female: &["Alice", "Margaret", "Hannah", "Grace", "Nora", "Eleanor", "Ruth", "Molly", "Abigail", "Clara"],
        male: &["Henry", "Thomas", "Samuel", "Walter", "Owen", "George", "Edward", "Liam", "Caleb", "Arthur"],
        family: &["Ashworth", "Bennett", "Carmichael", "O'Brien", "Whitfield", "McAllister", "Pemberton", "Hale"],
    },
    Origin {
        language: Some(("es", "Spanish")),
        female: &["Lucía", "María José", "Sofía", "Valentina", "Inés", "Ximena", "Begoña", "Rocío"],
        male: &["José", "Andrés", "Joaquín", "Mateo", "Ángel", "Íñigo", "Tomás", "Raúl"],
        family: &["García Núñez", "Hernández", "Muñoz", "Peña", "Ibáñez", "Castañeda", "Villarreal", "Quiñones"],
    },
    Origin {
        language: Some(("fr", "French")),
        female: &["Zoé", "Chloé", "Amélie", "Françoise", "Élodie", "Noëlle"],
        male: &["François", "Jérôme", "Benoît", "Étienne", "Loïc", "Jean-Baptiste"],
        family: &["Lefèvre", "Beaumont", "D'Aubigné", "Desrosiers", "Gagné", "Saint-Cyr"],
    },
    Origin {
        language: Some(("de", "German")),
        female: &["Käthe", "Jutta", "Liesl", "Annegret", "Ulrike"],
        male: &["Jürgen", "Björn", "Götz", "Matthias", "Wolfgang"],
        family: &["Müller", "Strauß", "Schönfeld", "von der Heide", "Krüger", "Weiß"],
    },
    Origin {
        language: Some(("pl", "Polish")),
        female: &["Małgorzata", "Zofia", "Agnieszka", "Łucja", "Grażyna"],
        male: &["Stanisław", "Paweł", "Michał", "Zbigniew", "Wojciech"],
        family: &["Wiśniewski", "Dąbrowski", "Łukaszewicz", "Śliwa", "Żukowski"],
    },
    Origin {
        language: Some(("vi", "Vietnamese")),
        female: &["Thảo", "Hương", "Ngọc Anh", "Mỹ Linh", "Tuyết"],
        male: &["Đức", "Minh Quân", "Hiếu", "Tuấn", "Bảo"],
        family: &["Nguyễn", "Trần", "Phạm", "Đặng", "Võ"],
    },
    Origin {
        language: Some(("tr", "Turkish")),
        female: &["Ayşe", "Elif", "Gülşen", "Zeynep", "İrem"],
        male: &["Çağlar", "Emre", "Oğuz", "Barış", "İbrahim"],
        family: &["Yıldız", "Şahin", "Öztürk", "Çelik", "Güneş"],
    },
    Origin {
        language: Some(("zh", "Chinese")),
        female: &["Meiling", "Xiaoyan", "Yuhan", "Jiayi", "Lihua"],
        male: &["Wei", "Zhihao", "Jianguo", "Haoran", "Guang"],
        family: &["Zhao", "Liang", "Ouyang", "Xu", "Feng"],
    },
    Origin {
        language: Some(("ar", "Arabic")),
        female: &["Amal", "Layla", "Noor", "Salma", "Yasmin"],
        male: &["Karim", "Omar", "Tariq", "Yusuf", "Ziad"],
        family: &["Al-Masri", "Haddad", "Nasser", "Abu Salim", "Khoury"],
    },
    Origin {
        language: Some(("hi", "Hindi")),
        female: &["Ananya", "Kavita", "Lakshmi", "Priya", "Shreya"],
        male: &["Arjun", "Dev", "Rajesh", "Sanjay", "Vikram"],
        family: &["Deshpande", "Iyer", "Kapoor", "Mehta", "Subramanian"],
    },
    Origin {
        language: Some(("yo", "Yoruba")),
        female: &["Adébísí", "Fọlákẹ́", "Tèmítọ́pẹ́", "Yétúndé"],
        male: &["Adéwálé", "Babátúndé", "Olúṣẹ́gun", "Ṣọlá"],
        family: &["Adéyẹmí", "Ọlátúnjí", "Balógun", "Ògúnbánjọ"],
    },
    Origin {
        language: Some(("ru", "Russian")),
        female: &["Svetlana", "Irina", "Tatiana", "Nadezhda"],
        male: &["Dmitri", "Nikolai", "Sergei", "Yevgeny"],
        family: &["Sokolov", "Morozov", "Kuznetsov", "Volkov"],
    },
];

pub const STREETS: &[&str] = &[
    "Linden Street",
    "Old Mill Road",
    "Harbor View Drive",
    "Maple Avenue",
    "Chapel Hill Lane",
    "Station Road",
    "Fourth Street",
    "Orchard Court",
    "Quarry Road",
    "Saint-Denis Place",
    "Riverside Terrace",
    "Cañon Boulevard",
];

/// City, state, first three digits of its postal codes.
pub const CITIES: &[(&str, &str, &str)] = &[
    ("Burlington", "VT", "054"),
    ("Montpelier", "VT", "056"),
    ("Keene", "NH", "034"),
    ("Concord", "NH", "033"),
    ("Portland", "ME", "041"),
    ("Springfield", "MA", "011"),
    ("Worcester", "MA", "016"),
    ("Providence", "RI", "029"),
    ("Hartford", "CT", "061"),
    ("Albany", "NY", "122"),
    ("Plattsburgh", "NY", "129"),
    ("Troy", "NY", "121"),
];

pub const INSURERS: &[&str] =
    &["Green Mountain Mutual", "Harborline Health Plan", "Northfield Cooperative Insurance", "Statewide Care Program"];

/// Speciality: SNOMED CT code and display, NUCC taxonomy code and display.
pub const SPECIALTIES: &[(&str, &str, &str, &str)] = &[
    ("419772000", "Family practice", "207Q00000X", "Family Medicine Physician"),
    ("419192003", "Internal medicine", "207R00000X", "Internal Medicine Physician"),
    ("394537008", "Pediatric specialty", "208000000X", "Pediatrics Physician"),
    ("394579002", "Cardiology", "207RC0000X", "Cardiovascular Disease Physician"),
    ("394583002", "Endocrinology", "207RE0101X", "Endocrinology, Diabetes & Metabolism Physician"),
];

/// A problem: what it is called, whom it strikes, what it does to measurements.
pub struct Problem {
    pub snomed: &'static str,
    pub icd10: &'static str,
    pub display: &'static str,
    /// Ages (years) in which it begins.
    pub from_age: i64,
    pub to_age: i64,
    /// Of those who reach the age.
    pub percent: u64,
    /// Stays active; the others resolve within weeks.
    pub chronic: bool,
}

const fn problem(
    snomed: &'static str,
    icd10: &'static str,
    display: &'static str,
    ages: (i64, i64),
    percent: u64,
    chronic: bool,
) -> Problem {
    Problem { snomed, icd10, display, from_age: ages.0, to_age: ages.1, percent, chronic }
}

pub const PROBLEMS: &[Problem] = &[
    problem("38341003", "I10", "Hypertensive disorder", (35, 80), 40, true),
    problem("44054006", "E11.9", "Diabetes mellitus type 2", (35, 75), 18, true),
    problem("55822004", "E78.5", "Hyperlipidemia", (35, 75), 32, true),
    problem("195967001", "J45.909", "Asthma", (4, 40), 12, true),
    problem("414916001", "E66.9", "Obesity", (18, 70), 22, true),
    problem("40930008", "E03.9", "Hypothyroidism", (30, 75), 9, true),
    problem("35489007", "F32.9", "Depressive disorder", (16, 70), 14, true),
    problem("21897009", "F41.1", "Generalized anxiety disorder", (16, 60), 10, true),
    problem("235595009", "K21.9", "Gastroesophageal reflux disease", (25, 75), 15, true),
    problem("396275006", "M19.90", "Osteoarthritis", (50, 85), 30, true),
    problem("433144002", "N18.30", "Chronic kidney disease stage 3", (55, 85), 12, true),
    problem("49436004", "I48.91", "Atrial fibrillation", (60, 85), 10, true),
    problem("13645005", "J44.9", "Chronic obstructive lung disease", (50, 80), 9, true),
    problem("37796009", "G43.909", "Migraine", (14, 45), 12, true),
    problem("61582004", "J30.9", "Allergic rhinitis", (5, 50), 16, true),
    problem("24079001", "L20.9", "Atopic dermatitis", (1, 12), 12, true),
    problem("54150009", "J06.9", "Upper respiratory infection", (0, 90), 45, false),
    problem("65363002", "H66.90", "Otitis media", (0, 9), 40, false),
    problem("43878008", "J02.0", "Streptococcal sore throat", (3, 30), 18, false),
    problem("10509002", "J20.9", "Acute bronchitis", (10, 90), 18, false),
    problem("68566005", "N39.0", "Urinary tract infectious disease", (18, 90), 14, false),
    problem("279039007", "M54.50", "Low back pain", (20, 80), 24, false),
    problem("44465007", "S93.409A", "Sprain of ankle", (8, 60), 10, false),
];

/// A quantity that is measured: LOINC code, display, UCUM code, unit as printed, digits, range of reference.
pub struct Measure {
    pub loinc: &'static str,
    pub display: &'static str,
    pub ucum: &'static str,
    pub unit: &'static str,
    pub places: usize,
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Usual value of a healthy adult and its spread.
    pub mean: f64,
    pub spread: f64,
}

const fn measure(
    loinc: &'static str,
    display: &'static str,
    ucum: &'static str,
    unit: &'static str,
    places: usize,
    reference: (Option<f64>, Option<f64>),
    usual: (f64, f64),
) -> Measure {
    let ((low, high), (mean, spread)) = (reference, usual);
    Measure { loinc, display, ucum, unit, places, low, high, mean, spread }
}

pub const GLUCOSE: &str = "2345-7";
pub const HBA1C: &str = "4548-4";
pub const CREATININE: &str = "2160-0";
pub const EGFR: &str = "33914-3";
pub const LDL: &str = "13457-7";
pub const CHOLESTEROL: &str = "2093-3";
pub const TSH: &str = "3016-3";

pub const METABOLIC: &[Measure] = &[
    measure(
        GLUCOSE,
        "Glucose [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        0,
        (Some(70.0), Some(99.0)),
        (92.0, 8.0),
    ),
    measure(HBA1C, "Hemoglobin A1c/Hemoglobin.total in Blood", "%", "%", 1, (None, Some(5.7)), (5.3, 0.25)),
    measure(
        CREATININE,
        "Creatinine [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        2,
        (Some(0.6), Some(1.3)),
        (0.9, 0.12),
    ),
    measure(
        EGFR,
        "Glomerular filtration rate/1.73 sq M.predicted [Volume Rate/Area] in Serum or Plasma by Creatinine-based formula (MDRD)",
        "mL/min/{1.73_m2}",
        "mL/min/1.73 m2",
        0,
        (Some(60.0), None),
        (94.0, 9.0),
    ),
    measure(
        "2951-2",
        "Sodium [Moles/volume] in Serum or Plasma",
        "mmol/L",
        "mmol/L",
        0,
        (Some(136.0), Some(145.0)),
        (140.0, 1.8),
    ),
    measure(
        "2823-3",
        "Potassium [Moles/volume] in Serum or Plasma",
        "mmol/L",
        "mmol/L",
        1,
        (Some(3.5), Some(5.1)),
        (4.2, 0.3),
    ),
];

pub const LIPIDS: &[Measure] = &[
    measure(
        CHOLESTEROL,
        "Cholesterol [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        0,
        (None, Some(200.0)),
        (178.0, 18.0),
    ),
    measure(
        "2571-8",
        "Triglyceride [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        0,
        (None, Some(150.0)),
        (118.0, 26.0),
    ),
    measure(
        "2085-9",
        "Cholesterol in HDL [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        0,
        (Some(40.0), None),
        (54.0, 8.0),
    ),
    measure(
        LDL,
        "Cholesterol in LDL [Mass/volume] in Serum or Plasma by calculation",
        "mg/dL",
        "mg/dL",
        0,
        (None, Some(130.0)),
        (104.0, 16.0),
    ),
];

pub const BLOOD_COUNT: &[Measure] = &[
    measure("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", "g/dL", 1, (Some(12.0), Some(17.0)), (14.1, 0.9)),
    measure(
        "6690-2",
        "Leukocytes [#/volume] in Blood by Automated count",
        "10*3/uL",
        "10^3/uL",
        1,
        (Some(4.5), Some(11.0)),
        (7.1, 1.3),
    ),
    measure(
        "777-3",
        "Platelets [#/volume] in Blood by Automated count",
        "10*3/uL",
        "10^3/uL",
        0,
        (Some(150.0), Some(400.0)),
        (252.0, 38.0),
    ),
];

pub const THYROID: &[Measure] = &[measure(
    TSH,
    "Thyrotropin [Units/volume] in Serum or Plasma",
    "m[IU]/L",
    "mIU/L",
    2,
    (Some(0.4), Some(4.5)),
    (2.1, 0.6),
)];

/// A panel: LOINC code and display of the report, and what it reports.
pub struct Panel {
    pub loinc: &'static str,
    pub display: &'static str,
    pub measures: &'static [Measure],
}

pub const PANELS: &[Panel] = &[
    Panel { loinc: "51990-0", display: "Basic metabolic panel - Blood", measures: METABOLIC },
    Panel { loinc: "24331-1", display: "Lipid 1996 panel - Serum or Plasma", measures: LIPIDS },
    Panel { loinc: "58410-2", display: "CBC panel - Blood by Automated count", measures: BLOOD_COUNT },
    Panel { loinc: TSH, display: "Thyrotropin [Units/volume] in Serum or Plasma", measures: THYROID },
];

/// Medication by the problem it treats: SNOMED code of the problem, RxNorm code, display, directions.
pub const MEDICATIONS: &[(&str, &str, &str, &str)] = &[
    ("38341003", "314076", "lisinopril 10 MG Oral Tablet", "Take one tablet by mouth once daily."),
    (
        "44054006",
        "860975",
        "24 HR metformin hydrochloride 500 MG Extended Release Oral Tablet",
        "Take one tablet with the evening meal.",
    ),
    ("55822004", "617310", "atorvastatin 20 MG Oral Tablet", "Take one tablet by mouth at bedtime."),
    ("195967001", "2123111", "albuterol 0.09 MG/ACTUAT Metered Dose Inhaler", "Two puffs every four hours as needed."),
    ("235595009", "198051", "omeprazole 20 MG Delayed Release Oral Capsule", "Take one capsule before breakfast."),
];

/// Substances people do not tolerate: SNOMED code, display, category, reaction code and display.
pub const ALLERGIES: &[(&str, &str, &str, &str, &str)] = &[
    ("764146007", "Penicillin", "medication", "271807003", "Eruption of skin"),
    ("256349002", "Peanut", "food", "39579001", "Anaphylaxis"),
    ("256259004", "Pollen", "environment", "70076002", "Rhinitis"),
    ("111088007", "Latex", "environment", "40275004", "Contact dermatitis"),
];
