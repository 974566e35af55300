# Eigenpairs of a symmetric matrix that depends on a number, continued by continuity.

"""
    Eigenpairs(λ, V)

Eigenvalues and their eigenvectors (columns), in the order in which they were first met.
"""
struct Eigenpairs{T}
    λ::Vector{T}
    V::Matrix{T}
end
Eigenpairs(H::Matrix) = Eigenpairs(eigenpairs(H)...)

"First and last places of the eigenvalues, which ascend, that differ from the next by no more than `τ`."
function clusters(λ::Vector, τ::Real)
    found, first = UnitRange{Int}[], 1
    for i in eachindex(λ)
        i < length(λ) && λ[i+1] - λ[i] <= τ && continue
        push!(found, first:i)
        first = i + 1
    end
    return found
end

"""
    continued(before, after, τ) -> Eigenpairs, overlap

The eigenpairs `after` (ascending) in the order and with the signs of those `before`: the assignment with the largest
sum of squared overlaps. Eigenvalues that are equal to `τ` share a space, in which the basis nearest to the vectors
before is taken (the polar factor of their products): a cluster has no eigenvectors of its own. `overlap` is the
smallest length that a vector before keeps when it is projected on the space of its successor; 1 where nothing turned.
"""
function continued(before::Eigenpairs{T}, after::Eigenpairs{T}, τ::Real) where {T}
    n = length(after.λ)
    C = abs2.(after.V' * before.V)                       # after × before
    groups = clusters(after.λ, τ)
    for group in groups
        C[group, :] .= sum(C[group, :]; dims=1)
    end
    place = assign(permutedims(-C))                      # of each vector before
    λ, V, overlap = similar(after.λ), similar(after.V), 1.0
    for group in groups
        owners = findall(in(group), place)
        W = after.V[:, group]
        S = svd(W' * before.V[:, owners])
        R = S.U * S.Vt
        V[:, owners] = W * R
        for (k, owner) in enumerate(owners)
            λ[owner] = length(group) == 1 ? after.λ[group[1]] : sum(after.λ[group] .* abs2.(R[:, k]))
            overlap = min(overlap, sqrt(Float64(C[group[1], owner])))
        end
    end
    return Eigenpairs(λ, V), overlap
end

"Whether two eigenvalues, told apart by more than `τ`, have changed places."
function exchanged(before::Eigenpairs, after::Eigenpairs, τ::Real)
    order = sortperm(before.λ)
    return any(before.λ[i] < before.λ[j] - τ && after.λ[i] > after.λ[j] + τ
               for (k, i) in enumerate(order) for j in view(order, k+1:length(order)))
end

"""
    continue_eigenpairs(pairs, before, s0, s1, τ) -> Eigenpairs at s1

From the eigenpairs `before` at `s0`, with `pairs(s)` the unordered ones at s; halves the way where an
eigenvector turns by more than 37° (overlap 0.8), and where two eigenvalues seem to have changed places, which
tells an avoided crossing from a crossing: what turns within 1/4096 of the way counts as a crossing.
"""
function continue_eigenpairs(pairs, before::Eigenpairs, s0::Real, s1::Real, τ::Real, depth::Int=0)
    after, overlap = continued(before, pairs(s1), τ)
    (depth == 12 || overlap >= 0.8 && !exchanged(before, after, τ)) && return after
    middle = (s0 + s1) / 2
    half = continue_eigenpairs(pairs, before, s0, middle, τ, depth + 1)
    return continue_eigenpairs(pairs, half, middle, s1, τ, depth + 1)
end
