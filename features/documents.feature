Feature: Documents are converted, read and summarized where they lie
  A folder of documents is worked on by the node's own worker. What cannot be read is named; what has not changed is not
  done twice; no document sees another.

  @U2 @F1 @system
  Scenario: A folder of sound, broken and hostile documents
    Given a running node
    And a folder of 60 documents, of which 14 are broken or hostile
    When the agent has the folder converted
    Then every good document came back converted
    And each broken document is named with its reason
    And progress was told while it ran
    And the documents of the folder are unchanged

  @U2 @R2 @system
  Scenario: A second run does only what changed
    Given a running node
    And a folder of 8 documents that was converted once
    When one document is changed, one is added, one is removed, and the folder is converted again
    Then only the changed and the added document were worked on
    And the results of all 8 documents are there

  @U2 @F1 @system
  Scenario: A summary that can be checked
    Given a running node
    When the agent has a PDF summarized
    Then each sentence of the summary stands where its place says

  @U2 @T1 @system
  Scenario: A document of 50 MB
    Given a running node
    When the agent sends a document of 50 MB to be extracted
    Then the answer is a job id at once
    And its progress can be followed to its end

  @U2 @R2 @system
  Scenario: What another credential's job kept is not taken
    Given a running node
    When a job names an earlier job that it may not build on
    Then it is refused and nothing runs
